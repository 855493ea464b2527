"""Whether the weights move, whoever moves them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

#: Of each parameter so many values are kept.
FIRST = 8


class MovedWeights:
    """Keeps a few values of each parameter that is to be trained, to see whether any has changed since."""

    def __init__(self) -> None:
        self._before: list[Tensor] = []

    def start(self, module: nn.Module) -> None:
        """Keep them as they are now."""
        self._before = _some_of(module)

    def have_moved(self, module: nn.Module) -> bool:
        """Return whether any is another now."""
        now = _some_of(module)
        return len(now) != len(self._before) or not all(map(torch.equal, now, self._before))


def _some_of(module: nn.Module) -> list[Tensor]:
    trained = (p for p in module.parameters() if p.requires_grad and not is_lazy(p))
    return [p.detach().reshape(-1)[:FIRST].cpu().clone() for p in trained]
