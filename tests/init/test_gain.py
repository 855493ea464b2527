"""Gains against torch's table, closed forms, and an independent quadrature."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from bnlm.init import computed_gain, gain_of

ERF = math.erf


def density(x: float) -> float:
    return math.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def hardtanh_moment(a: float) -> float:
    """Return E[clamp(z, -a, a)^2] for a standard normal z."""
    inside = ERF(a / math.sqrt(2))
    return inside - 2 * a * density(a) + a * a * (1 - inside)


def hardshrink_moment(a: float) -> float:
    """Return E[z^2; |z| > a]."""
    return 1 - ERF(a / math.sqrt(2)) + 2 * a * density(a)


@pytest.mark.parametrize(
    ("module", "name", "param"),
    [
        (nn.Identity(), "linear", None),
        (nn.Sigmoid(), "sigmoid", None),
        (nn.Tanh(), "tanh", None),
        (nn.ReLU(), "relu", None),
        (nn.LeakyReLU(), "leaky_relu", None),
        (nn.LeakyReLU(0.3), "leaky_relu", 0.3),
        (nn.SELU(), "selu", None),
    ],
)
def test_torchs_value_where_it_has_one(module: nn.Module, name: str, param: float | None) -> None:
    assert gain_of(module) == pytest.approx(nn.init.calculate_gain(name, param), rel=1e-12)


def test_no_activation_has_gain_1() -> None:
    assert gain_of(None) == 1.0


@pytest.mark.parametrize(
    ("function", "moment"),
    [
        (nn.Identity(), 1.0),
        (nn.ReLU(), 0.5),
        (nn.LeakyReLU(0.3), (1 + 0.09) / 2),
        (nn.SELU(), 1.0),  # the constants of SELU are chosen for it
        (nn.Hardtanh(), hardtanh_moment(1.0)),
        (nn.Hardtanh(-0.37281, 0.37281), hardtanh_moment(0.37281)),
        (nn.ReLU6(), hardtanh_moment(6.0) / 2),
        (nn.Hardshrink(), hardshrink_moment(0.5)),
        (nn.Hardshrink(0.3), hardshrink_moment(0.3)),
    ],
)
def test_computed_gain_matches_the_closed_form(function: nn.Module, moment: float) -> None:
    assert computed_gain(function) == pytest.approx(1 / math.sqrt(moment), abs=1e-6)


@pytest.mark.parametrize("module", [nn.Tanh(), nn.Sigmoid(), nn.GELU(), nn.SiLU(), nn.Mish(), nn.Softplus()])
def test_computed_gain_matches_gauss_hermite(module: nn.Module) -> None:
    nodes, weights = np.polynomial.hermite_e.hermegauss(160)
    values = module(torch.from_numpy(nodes)).numpy()
    moment = float((weights * values**2).sum() / weights.sum())
    assert computed_gain(module) == pytest.approx(1 / math.sqrt(moment), abs=1e-6)


def test_where_torch_and_the_computed_gain_differ() -> None:
    assert computed_gain(torch.tanh) == pytest.approx(1.5925, abs=5e-5)
    assert computed_gain(torch.sigmoid) == pytest.approx(1.8462, abs=5e-5)


def test_prelu_takes_its_present_slopes() -> None:
    module = nn.PReLU(2)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([0.1, 0.5]))
    assert gain_of(module) == pytest.approx(math.sqrt(2 / (1 + (0.01 + 0.25) / 2)), rel=1e-6)


def test_rrelu_averages_over_its_random_slope() -> None:
    slopes = np.linspace(0.125, 1 / 3, 100_001)
    assert gain_of(nn.RReLU()) == pytest.approx(math.sqrt(2 / (1 + (slopes**2).mean())), rel=1e-5)


NOT_ELEMENTWISE = {"GLU", "LogSoftmax", "MultiheadAttention", "Softmax", "Softmax2d", "Softmin"}
ARGUMENTS = {"Threshold": (0.1, 20.0)}


@pytest.mark.parametrize("name", sorted(set(nn.modules.activation.__all__) - NOT_ELEMENTWISE))
def test_every_elementwise_activation_of_torch_has_a_gain(name: str) -> None:
    module = getattr(nn, name)(*ARGUMENTS.get(name, ()))
    gain = gain_of(module)
    assert 0 < gain < math.inf
    if name in {"ReLU", "LeakyReLU", "PReLU", "RReLU", "ReLU6", "Threshold"} or name in {"Tanh", "Sigmoid", "SELU"}:
        return  # closed forms, or torch's table: above
    z = np.random.default_rng(0).standard_normal(400_000)
    moment = module(torch.from_numpy(z)).square().mean().item()
    assert gain == pytest.approx(1 / math.sqrt(moment), rel=0.01)


@pytest.mark.parametrize("module", [nn.Softmax(-1), nn.Softmin(-1), nn.LogSoftmax(-1), nn.GLU()])
def test_what_is_not_elementwise_has_no_gain(module: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"init\.gain=auto: .* is not elementwise; set init\.gain to a number"):
        gain_of(module)


def test_other_activations_get_the_computed_gain() -> None:
    assert gain_of(nn.GELU()) == computed_gain(nn.functional.gelu)
    assert gain_of(nn.ELU(alpha=0.5)) == computed_gain(lambda z: nn.functional.elu(z, 0.5))
    assert gain_of(nn.Hardtanh(inplace=True)) == gain_of(nn.Hardtanh())


def test_a_wide_network_with_the_computed_gain_keeps_its_scale() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 512, generator=generator)
    gain = computed_gain(nn.functional.gelu)
    for _ in range(5):
        weight = torch.randn(512, 512, generator=generator) / math.sqrt(512)
        x = gain * nn.functional.gelu(x @ weight.T)
    assert x.square().mean().item() == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize(
    ("function", "message"),
    [(lambda z: z.sum(), "not elementwise"), (torch.zeros_like, "second moment 0"), (torch.sqrt, "second moment nan")],
)
def test_a_gain_that_cannot_be_computed(function, message: str) -> None:
    with pytest.raises(ValueError, match=rf"init\.gain=auto: .*{message}.*set init\.gain to a number"):
        computed_gain(function)
