"""BatchRenorm against the paper's algorithm in float64, with autograd for its gradients."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from bnlm.normalization import BatchNorm, BatchRenorm, makes_bias_redundant


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 2


def algorithm_1(x: Tensor, layer: BatchRenorm, r_max: float, d_max: float) -> Tensor:
    """The training output, written from the paper; `layer` gives parameters and running statistics."""
    std = torch.sqrt(x.var(0, correction=0) + layer.eps)
    running_std = torch.sqrt(layer.running_var + layer.eps)
    r = (std / running_std).clamp(1 / r_max, r_max).detach()
    d = ((x.mean(0) - layer.running_mean) / running_std).clamp(-d_max, d_max).detach()
    return ((x - x.mean(0)) / std * r + d) * layer.weight + layer.bias


def ready(r_max: float, d_max: float, warmup_steps: int = 0, batches: int = 0) -> BatchRenorm:
    layer = BatchRenorm(5, r_max, d_max, warmup_steps, momentum=0.1, dtype=torch.float64)
    layer.load_state_dict(
        {
            "weight": torch.linspace(0.5, 2, 5),
            "bias": torch.linspace(-1, 1, 5),
            "running_mean": torch.linspace(1, 3, 5),
            "running_var": torch.linspace(1, 12, 5),
            "num_batches_tracked": torch.tensor(batches),
        }
    )
    return layer


@pytest.mark.parametrize(("r_max", "d_max"), [(3.0, 5.0), (1.1, 0.1), (1.0, 0.0)])
def test_matches_the_paper(r_max: float, d_max: float) -> None:
    layer = ready(r_max, d_max)
    x = drawn(7, 5).requires_grad_()
    expected = algorithm_1(x, layer, r_max, d_max)
    weights = drawn(7, 5, seed=1)
    wanted = torch.autograd.grad((expected * weights).sum(), (x, layer.weight, layer.bias))
    mean = layer.running_mean + 0.1 * (x.mean(0) - layer.running_mean)
    var = layer.running_var + 0.1 * (x.var(0) - layer.running_var)
    out = layer(x)
    assert_close(out, expected, rtol=1e-12, atol=1e-12)
    got = torch.autograd.grad((out * weights).sum(), (x, layer.weight, layer.bias))
    assert_close(got, wanted, rtol=1e-10, atol=1e-11)
    assert_close(layer.running_mean, mean.detach(), rtol=1e-12, atol=1e-12)
    assert_close(layer.running_var, var.detach(), rtol=1e-12, atol=1e-12)


def test_unclipped_it_is_the_eval_output() -> None:
    layer, x = ready(1e9, 1e9), drawn(7, 5)
    expected = copy.deepcopy(layer).eval()(x)
    assert_close(layer(x), expected, rtol=1e-10, atol=1e-10)


def test_the_warm_up_is_batch_norm_and_the_limits_grow_as_in_the_paper() -> None:
    plain, layer = nn.BatchNorm1d(5, dtype=torch.float64), BatchRenorm(5, momentum=0.1, dtype=torch.float64)
    for seed in range(3):
        x = drawn(7, 5, seed=seed)
        assert_close(layer(x), plain(x), rtol=1e-12, atol=1e-12)
    assert_close(layer.state_dict(), plain.state_dict(), rtol=1e-12, atol=1e-12)
    for batches, r_max, d_max in ((0, 1, 0), (5000, 1, 0), (15_000, 1 + 2 * 2 / 7, 2.5), (25_000, 1 + 8 / 7, 5)):
        layer.num_batches_tracked.fill_(batches)
        assert [float(limit) for limit in layer.limits()] == pytest.approx([r_max, d_max], abs=1e-6)
    layer.num_batches_tracked.fill_(1_000_000)
    assert [float(limit) for limit in layer.limits()] == [3, 5]


def test_three_dimensions_are_positions_of_a_batch() -> None:
    flat, last, first = ready(3, 5), ready(3, 5), ready(3, 5)
    last.channel_dim = -1
    x = drawn(4, 3, 5)
    expected = flat(x.reshape(-1, 5)).view(4, 3, 5)
    assert_close(last(x), expected, rtol=1e-12, atol=1e-12)
    assert_close(first(x.transpose(1, 2)).transpose(1, 2), expected, rtol=1e-12, atol=1e-12)


def test_a_bias_before_it_gets_no_gradient() -> None:
    layer, x, shift = ready(3, 5), drawn(7, 5), torch.zeros(5, dtype=torch.float64, requires_grad=True)
    assert makes_bias_redundant(layer)
    (layer(x + shift) * drawn(7, 5, seed=1)).sum().backward()
    assert_close(shift.grad, torch.zeros_like(shift), rtol=0, atol=1e-12)


def test_far_from_zero_and_in_half_precision() -> None:
    exact, single = ready(3, 5), BatchRenorm(5, 3.0, 5.0, 0)
    exact.running_mean.fill_(1e4)
    single.load_state_dict(exact.state_dict())
    x = drawn(64, 5)
    assert_close(single(x.float() + 1e4).double(), exact(x + 1e4), rtol=1e-3, atol=5e-3)  # the input has 1e-3
    half = ready(3, 5).float()
    out = half(x.bfloat16())
    assert out.dtype == torch.bfloat16
    assert half.running_var.dtype == torch.float32
    assert_close(out.double(), ready(3, 5)(x.bfloat16().double()), rtol=2**-7, atol=2**-7)


def test_without_a_momentum_batches_are_averaged() -> None:
    layer = BatchRenorm(5, warmup_steps=0, momentum=None, affine=False, dtype=torch.float64)
    batches = [drawn(7, 5, seed=seed) for seed in range(3)]
    for x in batches:
        layer(x)
    assert_close(layer.running_mean, torch.stack([x.mean(0) for x in batches]).mean(0), rtol=1e-12, atol=1e-12)
    assert_close(layer.running_var, torch.stack([x.var(0) for x in batches]).mean(0), rtol=1e-12, atol=1e-12)


def test_switched_off_tracking_is_batch_norm() -> None:
    layer, plain = ready(3, 5), BatchNorm(5, dtype=torch.float64)
    plain.load_state_dict(layer.state_dict())
    layer.track_running_stats = plain.track_running_stats = False
    assert layer(drawn(7, 5)).equal(plain(drawn(7, 5)))
    assert_close(layer.state_dict(), plain.state_dict(), rtol=0, atol=0)


def test_empty_and_single_batches() -> None:
    layer = ready(3, 5)
    before = copy.deepcopy(layer.state_dict())
    assert layer(torch.zeros(0, 5, dtype=torch.float64)).shape == (0, 5)
    assert_close(layer.running_mean, before["running_mean"], rtol=0, atol=0)
    with pytest.raises(ValueError, match="has one value per channel"):
        layer(drawn(1, 5))


def test_eval_and_copies() -> None:
    layer, x = ready(3, 5), drawn(7, 5)
    plain = BatchNorm(5, dtype=torch.float64)
    plain.load_state_dict(layer.state_dict())
    assert_close(layer.eval()(x), plain.eval()(x), rtol=0, atol=0)
    for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert copied.train()(x).equal(copy.deepcopy(layer).train()(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"r_max": 0.5}, r"normalization\.r_max=0\.5: expected a number of at least 1"),
        ({"d_max": -1}, r"normalization\.d_max=-1: expected a number of at least 0"),
        ({"warmup_steps": 1.5}, r"normalization\.warmup_steps=1\.5: expected a whole number"),
        ({"momentum": 2}, r"normalization\.momentum=2: expected a number from 0 to 1"),
    ],
)
def test_options_are_checked(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BatchRenorm(5, **options)
