"""Each scheme's scale and shape, against torch.nn.init and the formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from bnlm.init import (
    fans,
    kaiming_normal,
    kaiming_uniform,
    normal,
    orthogonal,
    scaled,
    torch_default_std,
    xavier_normal,
    xavier_uniform,
)

SHAPES = [(150, 60), (40, 20, 3), (20, 10, 3, 5)]
TORCH = {
    kaiming_normal: lambda w, g: nn.init.normal_(w, 0.0, g / math.sqrt(fan(w)[0])),
    kaiming_uniform: lambda w, g: nn.init.uniform_(w, -g * math.sqrt(3 / fan(w)[0]), g * math.sqrt(3 / fan(w)[0])),
    xavier_normal: lambda w, g: nn.init.xavier_normal_(w, g),
    xavier_uniform: lambda w, g: nn.init.xavier_uniform_(w, g),
}


def fan(weight: torch.Tensor) -> tuple[int, int]:
    return nn.init._calculate_fan_in_and_fan_out(weight)


@pytest.mark.parametrize("shape", SHAPES)
def test_fans_match_torch(shape: tuple[int, ...]) -> None:
    assert fans(torch.empty(shape)) == fan(torch.empty(shape))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scheme", TORCH)
def test_draws_what_torch_draws_from_the_same_seed(scheme, shape: tuple[int, ...]) -> None:
    ours, theirs = torch.empty(shape), torch.empty(shape)
    std = scheme(ours, gain=1.7, generator=torch.Generator().manual_seed(3))
    torch.manual_seed(3)
    TORCH[scheme](theirs, 1.7)
    assert_close(ours, theirs, rtol=1e-6, atol=1e-7)
    # of n draws the sample's standard deviation strays by about std / sqrt(2n); 5 of these
    assert ours.std().item() == pytest.approx(std, rel=5 / math.sqrt(2 * ours.numel()))


def test_kaiming_is_torchs_with_relus_gain() -> None:
    ours, theirs = torch.empty(30, 20), torch.empty(30, 20)
    for scheme, reference in (
        (kaiming_normal, nn.init.kaiming_normal_),
        (kaiming_uniform, nn.init.kaiming_uniform_),
    ):
        scheme(ours, gain=math.sqrt(2), generator=torch.Generator().manual_seed(3))
        torch.manual_seed(3)
        reference(theirs, nonlinearity="relu")
        assert_close(ours, theirs)


@pytest.mark.parametrize("scheme", [kaiming_uniform, xavier_uniform])
def test_uniform_draws_fill_their_bounds(scheme) -> None:
    weight = torch.empty(150, 60)
    bound = math.sqrt(3) * scheme(weight, gain=1.7, generator=torch.Generator().manual_seed(0))
    assert 0.99 * bound < weight.abs().max().item() <= bound


@pytest.mark.parametrize("mode", ["fan_in", "fan_out", "fan_avg"])
def test_kaimings_modes(mode: str) -> None:
    ours, theirs = torch.empty(40, 20, 3), torch.empty(40, 20, 3)
    std = kaiming_normal(ours, gain=math.sqrt(2), mode=mode, generator=torch.Generator().manual_seed(3))
    torch.manual_seed(3)
    if mode == "fan_avg":
        nn.init.xavier_normal_(theirs, math.sqrt(2))
    else:
        nn.init.kaiming_normal_(theirs, mode=mode, nonlinearity="relu")
    assert_close(ours, theirs)
    assert std == pytest.approx(math.sqrt(2 / {"fan_in": 60, "fan_out": 120, "fan_avg": 90}[mode]))
    bound = math.sqrt(3) * kaiming_uniform(ours, mode=mode)
    assert 0.99 * bound < ours.abs().max().item() <= bound


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match=r"init\.scheme\.mode='fan': expected one of fan_in, fan_out, fan_avg"):
        kaiming_normal(torch.empty(3, 2), mode="fan")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(6, 10), (10, 6), (7, 7), (5, 4, 3)])
def test_orthogonal_has_all_singular_values_at_the_gain(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    weight = torch.empty(shape, dtype=dtype)
    std = orthogonal(weight, gain=1.7, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(weight.double().flatten(1))
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 2e-2}[dtype]
    assert_close(values, torch.full_like(values, 1.7), rtol=tolerance, atol=0)
    assert weight.double().square().mean().sqrt().item() == pytest.approx(std, rel=tolerance)


@pytest.mark.parametrize("shape", [(6, 10), (10, 6), (5, 4, 3)])
def test_orthogonal_draws_what_torch_draws(shape: tuple[int, ...]) -> None:
    ours, theirs = torch.empty(shape), torch.empty(shape)
    orthogonal(ours, gain=1.7, generator=torch.Generator().manual_seed(3))
    nn.init.orthogonal_(theirs, 1.7, generator=torch.Generator().manual_seed(3))
    assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_orthogonal_needs_a_matrix() -> None:
    with pytest.raises(ValueError, match=r"shape \(3,\): an orthogonal matrix needs at least 2 dimensions"):
        orthogonal(torch.empty(3))


def test_normal_and_scaled_know_nothing_of_fan_in() -> None:
    for shape in SHAPES:
        naive, factored = torch.empty(shape), torch.empty(shape)
        assert normal(naive, generator=torch.Generator().manual_seed(0)) == 1.0
        assert scaled(factored, factor=0.3, generator=torch.Generator().manual_seed(0)) == 0.3
        assert naive.std().item() == pytest.approx(1.0, rel=0.1)
        assert_close(factored, 0.3 * naive)


def test_scaled_refuses_a_factor_of_zero() -> None:
    with pytest.raises(ValueError, match=r"init\.scheme\.factor=0: expected a number above 0"):
        scaled(torch.empty(3, 2), factor=0)


@pytest.mark.parametrize("layer", [nn.Linear(60, 400), nn.Conv2d(20, 100, (3, 5))])
def test_torch_default_std_is_that_of_a_new_layer(layer: nn.Linear | nn.Conv2d) -> None:
    assert layer.weight.std().item() == pytest.approx(torch_default_std(layer.weight), rel=0.05)


def test_a_parameter_is_drawn_in_place_and_keeps_its_gradient_switch() -> None:
    layer = nn.Linear(3, 2)
    before = layer.weight
    kaiming_normal(layer.weight)
    assert layer.weight is before
    assert layer.weight.requires_grad
    assert layer.weight.is_leaf
