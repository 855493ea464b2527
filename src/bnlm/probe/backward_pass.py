"""Whether a backward pass is one of a loss, or one by which somebody asks for a gradient."""

from __future__ import annotations

import torch
from torch.autograd.graph import Node

from bnlm.probe.names import Names

#: Nodes of a graph that are looked through for a leaf.
MAX_NODES = 100


class BackwardPasses:
    """Tells the passes that bring parameters their gradients from those of `torch.autograd.grad`.

    By which penalties, samplers and optimizers of the second order ask for gradients that nothing learns by.

    Args:
        names: Of the network.
    """

    def __init__(self, names: Names) -> None:
        self._names = names
        self._task = -1
        self._is_of_a_loss = True

    def is_of_a_loss(self) -> bool:
        """Return it of the backward pass that runs; to be called by hooks on nodes."""
        task = torch._C._current_graph_task_id()
        if task != self._task:
            self._task = task
            # Of several networks a pass may be of another one than the first parameter's.
            self._is_of_a_loss = _reaches(self._names.first_leaf) or _reaches(
                _leaf_before(torch._C._current_autograd_node())
            )
        return self._is_of_a_loss


def _leaf_before(node: Node | None) -> Node | None:
    """Return the nearest node at which the gradient of a parameter arrives, from which comes what `node` returned.

    None where there is none near.
    """
    nodes = [node]
    for _ in range(MAX_NODES):
        if not nodes:
            break
        node = nodes.pop()
        if node is not None:
            if node.name() == "torch::autograd::AccumulateGrad":
                return node
            nodes += [before for before, _ in node.next_functions]
    return None


def _reaches(leaf: Node | None) -> bool:
    """Return whether the backward pass that runs brings this leaf its gradient."""
    try:
        return leaf is None or torch._C._will_engine_execute_node(leaf)
    except RuntimeError:  # "A leaf node was passed ...": it is asked for by `torch.autograd.grad`
        return False
