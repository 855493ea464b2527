"""How many values flow into and out of a unit."""

from __future__ import annotations

import math

from torch import Tensor

Fans = tuple[float, float]
"""(fan_in, fan_out): how many terms an output is the sum of, and how many outputs a term goes into, on average."""


def fans(weight: Tensor) -> tuple[int, int]:
    """Return (fan_in, fan_out) of a Linear's ``(out, in)`` or a convolution's ``(out, in, *kernel)`` weight.

    In a convolution each unit sees ``in`` channels at every place of its kernel, so the kernel's size counts in both.
    What the shape alone cannot tell (transposition, groups, strides, stacked gates) is in `bnlm.init.weights_of`.
    """
    receptive_field = math.prod(weight.shape[2:])
    return weight.shape[1] * receptive_field, weight.shape[0] * receptive_field
