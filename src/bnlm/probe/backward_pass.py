"""Whether a backward pass is one of a loss, or one by which somebody asks for a gradient."""

from __future__ import annotations

import torch
from torch.autograd.graph import Node

#: Nodes of a graph that are looked through for a leaf.
MAX_NODES = 100


def leaf_before(node: Node | None) -> Node | None:
    """Return the node at which the gradient of a parameter arrives that went into what `node` returned.

    None where there is none among the nearest.
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


def is_of_the_loss(leaf: Node | None) -> bool:
    """Return whether the backward pass that runs brings this leaf its gradient.

    `torch.autograd.grad`, as penalties and samplers call it, brings parameters none: it is not what they learn by.
    """
    try:
        return leaf is None or torch._C._will_engine_execute_node(leaf)
    except RuntimeError:  # "A leaf node was passed ...": it is asked for by `torch.autograd.grad`
        return False
