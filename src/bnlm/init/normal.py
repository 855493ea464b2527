"""The naive start: every weight from the standard normal distribution."""

from __future__ import annotations

import torch
from torch import Generator, Tensor


@torch.no_grad()
def normal(weight: Tensor, *, generator: Generator | None = None) -> float:
    """Draw ``weight`` in place from N(0, 1), whatever its fan_in; return the standard deviation 1.

    Source: the first network of Karpathy, makemore part 3. A unit's input then has standard deviation sqrt(fan_in).
    """
    weight.normal_(0.0, 1.0, generator=generator)
    return 1.0
