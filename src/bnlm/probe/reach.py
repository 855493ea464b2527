"""What a loss cannot fall below whose outputs come straight out of an activation: that may not reach the targets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from bnlm.probe.plain_values import place_of
from bnlm.stats import CLAMPS

#: The least and the largest value of an activation. GELU, SiLU, Mish and hardswish: their minimum, rounded down.
RANGES: dict[str, tuple[float, float]] = {
    **CLAMPS,
    **dict.fromkeys(("relu", "softplus"), (0.0, math.inf)),
    **dict.fromkeys(("tanh", "softsign"), (-1.0, 1.0)),
    "sigmoid": (0.0, 1.0),
    "logsigmoid": (-math.inf, 0.0),
    **dict.fromkeys(("elu", "celu"), (-1.0, math.inf)),
    "selu": (-1.7581, math.inf),
    "gelu": (-0.17, math.inf),
    "silu": (-0.2785, math.inf),
    "mish": (-0.3089, math.inf),
    "hardswish": (-0.375, math.inf),
}


@dataclass
class Reach:
    """The activation whose output something is, and what it reaches."""

    kind: str
    low: float
    high: float
    _at: int | None
    _elements: int

    @classmethod
    def of(cls, kind: str, output: Tensor, limits: tuple[float, float] | None) -> Reach | None:
        """Return the reach of what an activation returned, or None where it reaches everything."""
        low_high = limits or RANGES.get(kind)
        return None if low_high is None else cls(kind, *low_high, place_of(output), output.numel())

    def is_of(self, x: Tensor) -> bool:
        """Whether `x` is that output, seen in whatever shape."""
        return self._at is not None and place_of(x) == self._at and x.numel() == self._elements

    def floor_of_classes(self, classes: int) -> float:
        """Return the least cross entropy: the right logit as high, all others as low as they can be."""
        return math.log1p((classes - 1) * math.exp(self.low - self.high))

    def floor_of_logits(self, target: Tensor) -> Tensor:
        """Return the least mean binary cross entropy with such logits."""
        nearest = torch.logit(target, eps=1e-6).clamp(self.low, self.high)
        return F.binary_cross_entropy_with_logits(nearest, target)

    def floor_of_distances(self, distance: partial[Tensor], target: Tensor) -> Tensor:
        """Return the mean distance from the nearest values in reach."""
        return distance(target.clamp(self.low, self.high), target).mean()
