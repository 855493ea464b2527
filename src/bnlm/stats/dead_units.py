"""Units that never respond: a ReLU that is never positive, a tanh that never leaves its flat ends."""

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
    alive = output > 0 if kind in RELU_LIKE else ~flat(kind, output, limits)
    return alive.movedim(channel_dim, -1).reshape(-1, output.shape[channel_dim]).any(dim=0)
