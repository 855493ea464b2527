"""tanh as a quotient of polynomials, which a compiler can put into the loop around it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

#: Beyond it float32 has no number between tanh and 1.
LIMIT = 9.02
#: P and Q of tanh(x) = x P(x²) / Q(x²), lowest power first. They come of an iteratively reweighted least-squares fit
#: (Lawson 1961) in float64 over 0..9.02; with these nine digits the largest relative error is 2.4e-8, less than half of
#: float32's rounding.
NUMERATOR = (0.999999979, 0.133797203, 0.00349403733, 2.05835233e-05, 1.33191236e-08)
DENOMINATOR = (1.0, 0.467130356, 0.025871084, 0.000328309722, 7.762042e-07)


def rational_tanh(x: Tensor) -> Tensor:
    """Return tanh of float32 values on the CPU to 5e-7 of themselves; of others, NotImplemented.

    Compiled code would call a function of a vector library for it, in the middle of a loop that has little else to do.
    """
    if x.dtype != torch.float32 or x.device.type != "cpu":
        computed: Any = NotImplemented  # a decomposition that leaves the operation as it is
        return computed
    x = x.clamp(-LIMIT, LIMIT)
    square = x * x
    return (x * _polynomial(NUMERATOR, square) / _polynomial(DENOMINATOR, square)).clamp(-1, 1)


def _polynomial(coefficients: tuple[float, ...], x: Tensor) -> Tensor:
    value: Any = coefficients[-1]
    for coefficient in reversed(coefficients[:-1]):
        value = value * x + coefficient
    result: Tensor = value
    return result
