"""Kaiming (He) initialisation: keeps the scale of the forward pass, or of the backward pass."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Generator, Tensor

from bnlm.init.fans import Fans, fans

Mode = Literal["fan_in", "fan_out", "fan_avg"]


def kaiming_std(weight: Tensor, gain: float, mode: Mode = "fan_in", fan: Fans | None = None) -> float:
    """Return ``gain / sqrt(n)``, n the fan_in (forward pass), the fan_out (backward pass) or the mean of the two.

    Source: He et al. 2015, arXiv 1502.01852, equations 10 and 14 (there with the gain of ReLU, sqrt(2)). With fan_avg
    it is Glorot's formula.

    Args:
        fan: fan_in and fan_out; None takes them from the weight's shape.
    Raises:
        ValueError: If the mode is unknown.
    """
    fan_in, fan_out = fan or fans(weight)
    sizes = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}
    if mode not in sizes:
        raise ValueError(f"init.scheme.mode={mode!r}: expected one of {', '.join(sizes)}.")
    return gain / math.sqrt(sizes[mode])


@torch.no_grad()
def kaiming_normal(
    weight: Tensor,
    *,
    gain: float = 1.0,
    mode: Mode = "fan_in",
    fan: Fans | None = None,
    generator: Generator | None = None,
) -> float:
    """Draw ``weight`` in place from a normal distribution of standard deviation `kaiming_std`; return that."""
    std = kaiming_std(weight, gain, mode, fan)
    weight.normal_(0.0, std, generator=generator)
    return std


@torch.no_grad()
def kaiming_uniform(
    weight: Tensor,
    *,
    gain: float = 1.0,
    mode: Mode = "fan_in",
    fan: Fans | None = None,
    generator: Generator | None = None,
) -> float:
    """Draw ``weight`` in place from a uniform distribution of standard deviation `kaiming_std`; return that."""
    std = kaiming_std(weight, gain, mode, fan)
    bound = math.sqrt(3.0) * std  # the standard deviation of U(-bound, bound) is bound / sqrt(3)
    weight.uniform_(-bound, bound, generator=generator)
    return std
