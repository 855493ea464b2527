"""Which units responded, for each layout of units, against a loop over them."""

import pytest
import torch
import torch.nn.functional as F

from bnlm.stats import can_die, channel_dim_of, responding_units


@pytest.mark.parametrize(
    ("shape", "dim"), [((6, 5), 1), ((4, 3, 5), 2), ((4, 5, 3, 2), 1), ((2, 5, 3, 2, 4), 1)], ids=str
)
@pytest.mark.parametrize("kind", ["relu", "gelu", "tanh", "sigmoid"])
def test_responding_units_of_every_layout(kind: str, shape: tuple[int, ...], dim: int) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    for unit in (1, 3):  # dead: far on the silent side, or on the flat ends
        x.select(dim, unit).sub_(100.0)
    x.select(dim, 4).sub_(100.0)
    x.select(dim, 4)[(-1,) * (len(shape) - 1)].fill_(0.5)  # responds once
    output = getattr(F, kind)(x) if hasattr(F, kind) else getattr(torch, kind)(x)
    assert channel_dim_of(output) == dim
    assert responding_units(kind, output, dim).tolist() == [True, False, True, False, True]


@pytest.mark.parametrize(("kind", "output"), [("relu", [0.0, 0.5, 0.0]), ("tanh", [-0.99, 0.5, 0.99])])
def test_units_of_a_single_example(kind: str, output: list[float]) -> None:
    assert responding_units(kind, torch.tensor(output), 0).tolist() == [False, True, False]


def test_limits_of_a_clamp_decide() -> None:
    output = torch.tensor([[2.0, 0.5, -1.0], [2.0, 2.0, -1.0]])
    assert responding_units("hardtanh", output, 1, (-1.0, 2.0)).tolist() == [False, True, False]
    assert responding_units("hardtanh", output, 1, (-3.0, 4.0)).tolist() == [True, True, True]


def test_activations_that_can_die() -> None:
    assert all(map(can_die, ("relu", "gelu", "silu", "mish", "hardswish", "tanh", "sigmoid", "hardtanh", "relu6")))
    assert not any(map(can_die, ("leaky_relu", "elu", "softplus", "selu", "celu")))
