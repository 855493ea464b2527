"""Flat outputs of every bounded activation: the share against the formula, and the boundaries themselves."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bnlm.stats import BOUNDED, flat, limits_from_call


def activated(kind: str, x: Tensor) -> Tensor:
    return getattr(F, kind)(x)


def expected(kind: str, x: Tensor) -> Tensor:
    """Which inputs are on the flat part, from the input alone, in float64."""
    x = x.double()
    if kind == "tanh":
        return x.abs() > torch.atanh(torch.tensor(0.97, dtype=torch.float64))
    if kind == "softsign":
        return x.abs() > 0.97 / 0.03
    if kind == "sigmoid":
        return x.abs() > torch.logit(torch.tensor(0.985, dtype=torch.float64))
    low, high = {"hardtanh": (-1, 1), "relu6": (0, 6), "hardsigmoid": (-3, 3)}[kind]
    return (x <= low) | (x >= high)


def test_the_bounded_activations() -> None:
    assert set(BOUNDED) == {"tanh", "softsign", "sigmoid", "hardtanh", "relu6", "hardsigmoid"}


@pytest.mark.parametrize("kind", sorted(BOUNDED))
def test_flat_matches_the_formula(kind: str) -> None:
    x = 5 * torch.randn(23, 17, generator=torch.Generator().manual_seed(1))
    x = 8 * x if kind == "softsign" else x
    got = flat(kind, activated(kind, x))
    assert got.dtype == torch.bool
    assert 0 < got.sum() < got.numel()
    assert got.equal(expected(kind, x))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("kind", "inside", "outside"),
    [
        ("tanh", [0.97, -0.97, 0.0], [0.98, -0.98, 1.0, -1.0]),
        ("softsign", [0.97, -0.97], [0.98, -0.98]),
        ("sigmoid", [0.015, 0.985, 0.5], [0.0149, 0.991, 0.0, 1.0]),
        ("hardtanh", [0.99, -0.99], [-1.0, 1.0]),
        ("relu6", [0.01, 5.9], [0.0, 6.0]),
        ("hardsigmoid", [0.01, 0.99], [0.0, 1.0]),
    ],
)
def test_boundaries(kind: str, inside: list[float], outside: list[float], dtype: torch.dtype) -> None:
    """A clamp is flat at its limit; the limits of the others belong to the steep part."""
    assert not flat(kind, torch.tensor(inside, dtype=dtype)).any()
    assert flat(kind, torch.tensor(outside, dtype=dtype)).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_hardtanh_with_limits_of_its_own(dtype: torch.dtype) -> None:
    """0.1 and 0.7 are rounded by the clamp, to what the output's precision can hold."""
    x = torch.tensor([[-3.0, 0.1, 0.11], [0.5, 0.69, 9.0]], dtype=dtype)
    output = F.hardtanh(x, 0.1, 0.7)
    assert flat("hardtanh", output, (0.1, 0.7)).tolist() == [[True, True, False], [False, False, True]]


@pytest.mark.parametrize(
    ("args", "kwargs", "limits"),
    [
        ((), {}, (-1.0, 1.0)),
        ((-2, 3), {}, (-2.0, 3.0)),
        ((-2,), {"max_val": 0.5}, (-2.0, 0.5)),
        ((), {"min_val": 0.25, "inplace": True}, (0.25, 1.0)),
    ],
)
def test_limits_are_read_from_the_call(args: tuple[Any, ...], kwargs: dict[str, Any], limits: Any) -> None:
    assert limits_from_call("hardtanh", (torch.zeros(2), *args), kwargs) == limits
    assert limits_from_call("tanh", (torch.zeros(2), *args), kwargs) is None
