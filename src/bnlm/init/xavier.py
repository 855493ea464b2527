"""Xavier (Glorot) initialisation: a compromise between the forward and the backward pass."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from bnlm.init.fans import Fans, fans


def xavier_std(weight: Tensor, gain: float, fan: Fans | None = None) -> float:
    """Return ``gain * sqrt(2 / (fan_in + fan_out))``.

    Source: Glorot & Bengio 2010, "Understanding the difficulty of training deep feedforward neural networks",
    equation 12; the gain is not theirs.

    Args:
        fan: fan_in and fan_out; None takes them from the weight's shape.
    """
    fan_in, fan_out = fan or fans(weight)
    return gain * math.sqrt(2.0 / (fan_in + fan_out))


@torch.no_grad()
def xavier_normal(
    weight: Tensor, *, gain: float = 1.0, fan: Fans | None = None, generator: Generator | None = None
) -> float:
    """Draw ``weight`` in place from a normal distribution of standard deviation `xavier_std`; return that."""
    std = xavier_std(weight, gain, fan)
    weight.normal_(0.0, std, generator=generator)
    return std


@torch.no_grad()
def xavier_uniform(
    weight: Tensor, *, gain: float = 1.0, fan: Fans | None = None, generator: Generator | None = None
) -> float:
    """Draw ``weight`` in place from a uniform distribution of standard deviation `xavier_std`; return that."""
    std = xavier_std(weight, gain, fan)
    bound = math.sqrt(3.0) * std  # the standard deviation of U(-bound, bound) is bound / sqrt(3)
    weight.uniform_(-bound, bound, generator=generator)
    return std
