"""tanh as a quotient of polynomials, which a compiler can put into the loop around it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

#: Beyond it float32 has no number between tanh and 1.
LIMIT = 9.02
#: P and Q of tanh(x) = x P(x²) / Q(x²), lowest power first. They come of an iteratively reweighted least-squares fit
#: (Lawson 1961) in float64 over 0..9.02, whose largest relative error is 2.1e-8, a third of float32's rounding.
NUMERATOR = (0.999999979, 0.133797203, 0.00349403733, 2.05835233e-05, 1.33191236e-08)
DENOMINATOR = (1.0, 0.467130356, 0.025871084, 0.000328309722, 7.762042e-07)


def rational_tanh(x: Tensor) -> Tensor:
    """Return tanh of float32 values on the CPU to 5e-7 of themselves; of others, NotImplemented.

    The function of the vector library that compiled code calls takes more than half of a loop with a BatchNorm in it.
    """
    if x.dtype != torch.float32 or x.device.type != "cpu":
        computed: Any = NotImplemented  # a decomposition that leaves the operation as it is
        return computed
    x = x.clamp(-LIMIT, LIMIT)
    square = x * x
    return (x * _polynomial(NUMERATOR, square) / _polynomial(DENOMINATOR, square)).clamp(-1, 1)


def _polynomial(coefficients: tuple[float, ...], x: Tensor) -> Tensor:
    *lower, highest = coefficients
    value = x * highest
    for coefficient in reversed(lower[1:]):
        value = (value + coefficient) * x
    return value + lower[0]
