"""Units that never respond: a ReLU that is never positive, a tanh that never leaves its flat ends."""

from collections.abc import Sequence

import torch
from torch import Tensor

from bnlm.stats.saturation import BOUNDED, flat

#: Activations with a silent side: a unit is alive once an output is above zero. LeakyReLU and ELU are not among them,
#: since a unit on their negative side still learns.
RELU_LIKE = frozenset({"relu", "gelu", "silu", "mish", "hardswish"})


def can_die(kind: str) -> bool:
    """Return whether units of the activation `kind` (torch's function name) can be dead."""
    return kind in RELU_LIKE or kind in BOUNDED


def channel_dim_of(output: Tensor) -> int:
    """Return the dimension that holds the units: 1 for images `(N, C, H, W)` and volumes, else the last."""
    return 1 if output.ndim >= 4 else output.ndim - 1


def responding_units(kind: str, output: Tensor, channel_dim: int, limits: tuple[float, float] | None = None) -> Tensor:
    """Return `(units,)` booleans: which units responded at least once in `output`.

    Args:
        kind: An activation for which `can_die`.
        output: What it returned, `(N, C)`, `(N, T, C)`, `(N, C, H, W)`, ...
        channel_dim: Dimension of the units.
        limits: See `flat`.
    """
    others = [d for d in range(output.ndim) if d != channel_dim % output.ndim]
    if kind in RELU_LIKE:
        highest = output.amax(others) if others else output  # a tenth of the time of a comparison and `any`
        return ~(highest <= 0)  # nan is not silence
    return ~all_over(flat(kind, output, limits), others)


def all_over(x: Tensor, dims: Sequence[int]) -> Tensor:
    """Return whether all of the booleans `x` over these dimensions are true, the shape of the others."""
    if x.device.type == "cpu":
        return torch.from_numpy(x.numpy().all(axis=tuple(dims)))  # which takes a tenth of torch's time
    for dim in sorted(dims, reverse=True):
        x = x.all(dim)
    return x
