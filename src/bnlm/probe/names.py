"""What the modules and parameters of a network are called, and which module is being called."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from functools import cached_property
from weakref import WeakSet

from torch import nn
from torch.autograd.graph import Node, get_gradient_edge
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from bnlm.probe.hand_written_norms import hand_written_batch_norms

#: Whatever calls a module, torch.nn's `__call__` or a subclass's, runs this.
_CALL = nn.Module._call_impl.__code__


def calling_modules() -> Iterator[nn.Module]:
    """Yield the modules that are being called, the innermost first.

    They are read from Python's stack: hooks on all modules would slow every call of them down.
    """
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code is _CALL:
            yield frame.f_locals["self"]
        frame = frame.f_back  # type: ignore[assignment]


class Names:
    """Paths of modules and names of parameters, by identity; the network is walked through when a new one turns up.

    What was named stays alive as long as this object, so that no identity is given twice; what is no part of the
    network does not.
    """

    def __init__(self, root: nn.Module) -> None:
        self.root = root
        self._paths: dict[int, tuple[nn.Module, str]] = {}
        self._others: WeakSet[nn.Module] = WeakSet()
        # By the identities of what optimizers hold: names, parameters, and all that is held.
        self._trained: dict[tuple[int, ...], tuple[list[str], list[nn.Parameter], list[nn.Parameter]]] = {}

    @cached_property
    def first_leaf(self) -> Node | None:
        """Where the gradient of the first parameter that has one arrives in a backward pass."""
        trained = next((p for p in self.root.parameters() if p.requires_grad and not is_lazy(p)), None)
        return None if trained is None else get_gradient_edge(trained).node

    @cached_property
    def hand_written_batch_norms(self) -> list[tuple[str, nn.Module]]:
        """Path and module of what may be a BatchNorm that somebody wrote out."""
        return [(plain(path), module) for path, module in hand_written_batch_norms(self.root)]

    def path_of(self, module: nn.Module) -> str | None:
        """Return a module's path; None if it is no part of the network."""
        known = self._paths.get(id(module))
        if known is None and module not in self._others:
            for path, each in self.root.named_modules():
                self._paths[id(each)] = each, plain(path)
            known = self._paths.get(id(module))
            if known is None:
                self._others.add(module)
        return None if known is None else known[1]

    def trained_by(self, optimizers: Sequence[Optimizer]) -> tuple[list[str], list[nn.Parameter]]:
        """Return the names, and the network's parameters that these optimizers hold, in its order."""
        held = [p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
        identities = tuple(map(id, held))
        if identities not in self._trained:
            those = set(identities)
            named = [(plain(name), p) for name, p in self.root.named_parameters() if id(p) in those]
            self._trained[identities] = [name for name, _ in named], [p for _, p in named], held
        names, parameters, _ = self._trained[identities]
        return names, parameters


def plain(path: str) -> str:
    """Return a path without the name under which torch.compile wraps a module, which its author never wrote."""
    return ".".join(part for part in path.split(".") if part != "_orig_mod") if "_orig_mod" in path else path
