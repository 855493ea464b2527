"""Which outputs of an activation lie on its flat part, where (almost) no gradient passes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

#: |tanh| above this: slope 1 - 0.97^2 = 0.059 (Karpathy, makemore part 3, the cell that prints "saturated").
TANH_LIMIT = 0.97
#: Sigmoid outside these has the same slope limit: a (1 - a) = 0.015, a quarter of 0.059, as its largest slope is 1/4.
SIGMOID_LIMITS = (0.015, 0.985)


def _tanh_flat(output: Tensor) -> Tensor:
    return output.abs() > TANH_LIMIT


def _sigmoid_flat(output: Tensor) -> Tensor:
    low, high = SIGMOID_LIMITS
    return (output < low) | (output > high)


def _clamp_flat(output: Tensor, low: float, high: float) -> Tensor:
    return (output <= low) | (output >= high)


#: Bounded activations by torch's function name -> predicate (output, the limits of a clamp) -> bool tensor.
BOUNDED: dict[str, Callable[..., Tensor]] = {
    "tanh": _tanh_flat,
    "softsign": _tanh_flat,
    "sigmoid": _sigmoid_flat,
    "hardtanh": _clamp_flat,
    "relu6": _clamp_flat,
    "hardsigmoid": _clamp_flat,
}
CLAMPS: dict[str, tuple[float, float]] = {"hardtanh": (-1.0, 1.0), "relu6": (0.0, 6.0), "hardsigmoid": (0.0, 1.0)}


def flat(kind: str, output: Tensor, limits: tuple[float, float] | None = None) -> Tensor:
    """Return which elements of `output` are on the flat part of the activation `kind`.

    Args:
        kind: A key of `BOUNDED`: tanh and softsign beyond 0.97, sigmoid outside 0.015..0.985, clamps at the clamp.
        output: What the activation returned, any shape.
        limits: For hardtanh, where it clamps; otherwise its usual limits.
    Returns:
        Boolean tensor of `output`'s shape.
    """
    if kind in CLAMPS:
        low, high = limits or CLAMPS[kind]
        # Compared in the output's own precision, in which the clamp wrote its limits.
        bounds = torch.tensor([low, high], dtype=output.dtype, device=output.device)
        return BOUNDED[kind](output, bounds[0], bounds[1])
    return BOUNDED[kind](output)


def limits_from_call(kind: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[float, float] | None:
    """Return the clamp's limits of a call `hardtanh(input, min_val, max_val)`, or None for any other activation."""
    if kind != "hardtanh":
        return None
    low = args[1] if len(args) > 1 else kwargs.get("min_val", -1.0)
    high = args[2] if len(args) > 2 else kwargs.get("max_val", 1.0)
    return float(low), float(high)
