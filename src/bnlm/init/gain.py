"""The gain of an activation: the factor that makes up for what it takes from the scale of its input."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

_TABLE: dict[type[nn.Module], float] = {
    nn.Identity: 1.0,
    nn.Sigmoid: 1.0,
    nn.Tanh: 5.0 / 3.0,
    nn.ReLU: math.sqrt(2.0),
    nn.SELU: 3.0 / 4.0,
}


def gain_of(activation: nn.Module | None) -> float:
    """Return the gain of an elementwise activation module; 1 for None.

    Where `torch.nn.init.calculate_gain` has a value it is that one (Identity, Sigmoid, Tanh, ReLU, LeakyReLU, SELU), so
    that networks match those of other libraries; every other activation gets `computed_gain`. For ReLU and LeakyReLU
    the two agree. Elsewhere they differ, because torch's values answer another question (all of them side by side:
    docs/initialisation.md):

    * Tanh: 5/3 against 1.5925. The computed gain holds the standard deviation of the inputs to tanh at 1 through any
      number of wide layers; with torch's 5/3, for which it gives no source, it settles at 1.0856.
    * SELU: 3/4 against 1. SELU is built so that gain 1 keeps the scale, and a deep plain network needs that; torch's
      was found by trial, for the gradients.
    * Sigmoid: 1 against 1.8463. torch does not count the sigmoid's loss of scale; the computed gain's second moment
      includes its mean of 1/2.

    Raises:
        ValueError: If the gain cannot be computed.
    """
    if activation is None:
        return 1.0
    if type(activation) in _TABLE:
        return _TABLE[type(activation)]
    if isinstance(activation, nn.LeakyReLU):
        return _leaky_gain(activation.negative_slope**2)
    if isinstance(activation, nn.PReLU):
        return _leaky_gain(activation.weight.detach().square().mean().item())  # one slope, or one per channel
    if isinstance(activation, nn.RReLU):  # the slope is drawn anew from U(lower, upper): the mean of its square
        low, high = activation.lower, activation.upper
        return _leaky_gain((low**2 + low * high + high**2) / 3.0)
    return computed_gain(activation.forward)


def computed_gain(function: Callable[[Tensor], Tensor]) -> float:
    """Return ``1 / sqrt(E[f(z)^2])``, z standard normal: the factor that keeps the second moment at 1.

    The expectation is a midpoint sum in float64 over [-12, 12] in steps of 1e-4. The step is a decimal so that the
    kinks and jumps of the usual activations (0, 1/2, 1, 3, 6) lie between two cells, where they cost no accuracy; the
    result is right to 1e-6.

    Source: the condition of He et al. 2015, arXiv 1502.01852, section 2.2, for any activation.

    Raises:
        ValueError: If f is not elementwise, or the second moment is zero or not finite.
    """
    cells = 240_000
    z = (torch.arange(cells, dtype=torch.float64) + 0.5) * 1e-4 - 12.0
    density = torch.exp(-0.5 * z.square()) * (1e-4 / math.sqrt(2.0 * math.pi))
    with torch.no_grad():
        values = function(z.clone())  # it may work in place
        elementwise = values.shape == density.shape and torch.allclose(
            function(z[:: cells // 100].clone()), values[:: cells // 100], equal_nan=True
        )
    if not elementwise:
        raise ValueError(f"init.gain=auto: {function} is not elementwise; set init.gain to a number.")
    moment = (values.square() * density).sum().item()
    if not 0.0 < moment < math.inf:
        raise ValueError(f"init.gain=auto: {function} has second moment {moment}; set init.gain to a number.")
    return 1.0 / math.sqrt(moment)


def _leaky_gain(mean_square_slope: float) -> float:
    """Return the gain of a ReLU whose negative side has a slope: half of the inputs keep their square."""
    return math.sqrt(2.0 / (1.0 + mean_square_slope))
