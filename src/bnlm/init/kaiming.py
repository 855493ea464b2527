"""Kaiming (He) initialisation: keeps the scale of the forward pass."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from bnlm.init.fans import fans


def kaiming_std(weight: Tensor, gain: float) -> float:
    """Return ``gain / sqrt(fan_in)``.

    Source: He et al. 2015, arXiv 1502.01852, equation 10 (there with the gain of ReLU, sqrt(2)).
    """
    fan_in, _ = fans(weight)
    return gain / math.sqrt(fan_in)


@torch.no_grad()
def kaiming_normal(weight: Tensor, *, gain: float = 1.0, generator: Generator | None = None) -> float:
    """Draw ``weight`` in place from a normal distribution of standard deviation `kaiming_std`; return that."""
    std = kaiming_std(weight, gain)
    weight.normal_(0.0, std, generator=generator)
    return std


@torch.no_grad()
def kaiming_uniform(weight: Tensor, *, gain: float = 1.0, generator: Generator | None = None) -> float:
    """Draw ``weight`` in place from a uniform distribution of standard deviation `kaiming_std`; return that."""
    std = kaiming_std(weight, gain)
    bound = math.sqrt(3.0) * std  # the standard deviation of U(-bound, bound) is bound / sqrt(3)
    weight.uniform_(-bound, bound, generator=generator)
    return std
