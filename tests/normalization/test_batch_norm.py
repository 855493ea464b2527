"""BatchNorm against torch.nn.BatchNorm1d, the plain formula in float64, and numerical gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from bnlm.normalization import BatchNorm

TOLERANCE = {torch.float32: {"rtol": 1e-5, "atol": 1e-6}, torch.float64: {"rtol": 1e-12, "atol": 1e-12}}
VARIANTS = [
    {},
    {"momentum": 0.01, "eps": 1e-3},
    {"momentum": None},
    {"momentum": 0.0},
    {"affine": False},
    {"track_running_stats": False},
    {"affine": False, "track_running_stats": False},
]


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return values with mean about 2 and standard deviation about 3."""
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) + 2


def lecture(x: Tensor, eps: float) -> Tensor:
    """Return the lecture's formula for ``(N, C)``."""
    return (x - x.mean(0, keepdim=True)) / torch.sqrt(x.var(0, keepdim=True, correction=1) + eps)


def randomise(layer: nn.Module) -> None:
    """Give the layer's weight and bias, if any, values that are not 1 and 0."""
    with torch.no_grad():
        for seed, parameter in enumerate(layer.parameters()):
            parameter.copy_(draw(*parameter.shape, seed=100 + seed))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("shape", [(8, 5), (4, 5, 3), (2, 5, 3, 4)])
def test_three_steps_and_eval_match_torch(shape: tuple[int, ...], variant: dict, dtype: torch.dtype) -> None:
    torch_class = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}[len(shape)]
    ours, reference = BatchNorm(5, **variant, dtype=dtype), torch_class(5, **variant, dtype=dtype)
    randomise(ours)
    randomise(reference)
    for seed in range(3):
        x = draw(*shape, seed=seed, dtype=dtype)
        grad = draw(*shape, seed=seed + 50, dtype=dtype)
        inputs = [x.clone().requires_grad_(), x.clone().requires_grad_()]
        outputs = [ours(inputs[0]), reference(inputs[1])]
        assert_close(*outputs, **TOLERANCE[dtype])
        assert outputs[0].dtype == dtype
        for output in outputs:
            output.backward(grad)
        assert_close(inputs[0].grad, inputs[1].grad, **TOLERANCE[dtype])
        for mine, theirs in zip(ours.parameters(), reference.parameters(), strict=True):
            assert_close(mine.grad, theirs.grad, **TOLERANCE[dtype])
        assert_close(ours.state_dict(), reference.state_dict(), **TOLERANCE[dtype])
    x = draw(*shape, seed=9, dtype=dtype)
    assert_close(ours.eval()(x), reference.eval()(x), **TOLERANCE[dtype])
    assert_close(ours.state_dict(), reference.state_dict(), **TOLERANCE[dtype])


@pytest.mark.parametrize("contiguous", [True, False])
@pytest.mark.parametrize("unbiased", [False, True])
def test_channel_last_takes_statistics_over_batch_and_position(contiguous: bool, unbiased: bool) -> None:
    last = BatchNorm(5, channel_dim=-1, unbiased=unbiased, dtype=torch.float64)
    flat = BatchNorm(5, unbiased=unbiased, dtype=torch.float64)
    middle = BatchNorm(5, unbiased=unbiased, dtype=torch.float64)
    x = draw(4, 3, 5) if contiguous else draw(4, 5, 3).transpose(1, 2)
    for _ in ("training", "eval"):
        expected = flat(x.reshape(12, 5)).view(4, 3, 5)
        assert_close(last(x), expected)
        assert_close(middle(x.transpose(1, 2)).transpose(1, 2), expected)
        assert_close(last.state_dict(), flat.state_dict())
        for layer in (last, flat, middle):
            layer.eval()


@pytest.mark.parametrize("eps", [0.0, 1e-5, 0.5])
def test_unbiased_form_is_the_lectures(eps: float) -> None:
    layer = BatchNorm(5, eps=eps, unbiased=True, dtype=torch.float64)
    randomise(layer)
    x = draw(7, 5)
    assert_close(layer(x), lecture(x, eps) * layer.weight + layer.bias, rtol=1e-12, atol=1e-12)
    plain = BatchNorm(5, eps=eps, affine=False, unbiased=True, dtype=torch.float64)
    assert_close(plain(x), lecture(x, eps), rtol=1e-12, atol=1e-12)
    assert_close(plain.running_mean, 0.1 * x.mean(0), rtol=1e-12, atol=1e-12)
    assert_close(plain.running_var, 0.9 + 0.1 * x.var(0, correction=1), rtol=1e-12, atol=1e-12)


def test_unbiased_form_in_eval_uses_the_running_statistics_unchanged() -> None:
    layer = BatchNorm(5, eps=1e-3, unbiased=True, dtype=torch.float64)
    randomise(layer)
    layer(draw(7, 5))
    mean, var = layer.running_mean.clone(), layer.running_var.clone()
    x = draw(2, 5, seed=1)
    expected = (x - mean) / torch.sqrt(var + 1e-3) * layer.weight + layer.bias
    assert_close(layer.eval()(x), expected, rtol=1e-12, atol=1e-12)
    assert_close(layer.running_var, var, rtol=0, atol=0)


def test_biased_form_allows_no_eps() -> None:
    x = draw(7, 5)
    expected = (x - x.mean(0)) / x.std(0, correction=0)
    assert_close(BatchNorm(5, eps=0.0, dtype=torch.float64)(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("eps", [0.0, 1e-5, 0.5])
@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("channel_dim", [1, -1])
def test_gradients_are_those_of_the_formula(channel_dim: int, unbiased: bool, eps: float) -> None:
    layer = BatchNorm(3, eps=eps, channel_dim=channel_dim, unbiased=unbiased, dtype=torch.float64)
    x = draw(4, 3, 2) if channel_dim == 1 else draw(4, 2, 3)

    def run(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (x,))

    inputs = (x.requires_grad_(), draw(3, seed=1).requires_grad_(), draw(3, seed=2).requires_grad_())
    assert torch.autograd.gradcheck(run, inputs)


def test_unbiased_gradient_matches_autograd_through_the_lectures_formula() -> None:
    layer = BatchNorm(5, unbiased=True, dtype=torch.float64)
    randomise(layer)
    grad = draw(7, 5, seed=1)
    x, y = draw(7, 5).requires_grad_(), draw(7, 5).requires_grad_()
    layer(x).backward(grad)
    weight, bias = (p.detach().clone().requires_grad_() for p in (layer.weight, layer.bias))
    (lecture(y, layer.eps) * weight + bias).backward(grad)
    for mine, theirs in ((x, y), (layer.weight, weight), (layer.bias, bias)):
        assert_close(mine.grad, theirs.grad, rtol=1e-10, atol=1e-10)


def test_cumulative_average_weighs_all_batches_alike() -> None:
    layer = BatchNorm(5, momentum=None, dtype=torch.float64)
    batches = [draw(8, 5, seed=seed) for seed in range(4)]
    for batch in batches:
        layer(batch)
    assert_close(layer.running_mean, torch.stack([b.mean(0) for b in batches]).mean(0))
    assert_close(layer.running_var, torch.stack([b.var(0) for b in batches]).mean(0))
    assert layer.num_batches_tracked.item() == 4


@pytest.mark.parametrize("variant", VARIANTS)
def test_state_dict_moves_both_ways(variant: dict) -> None:
    ours, reference = BatchNorm(5, **variant), nn.BatchNorm1d(5, **variant)
    x = draw(8, 5, dtype=torch.float32)
    ours(x)
    randomise(ours)
    reference.load_state_dict(ours.state_dict())
    assert list(ours.state_dict()) == list(reference.state_dict())
    assert_close(reference.eval()(x), ours.eval()(x), **TOLERANCE[torch.float32])
    fresh = BatchNorm(5, **variant)
    fresh.load_state_dict(reference.state_dict())
    assert_close(fresh.eval()(x), ours(x), rtol=0, atol=0)


def test_tracking_can_be_switched_off_on_a_built_layer_as_in_torch() -> None:
    ours, reference = BatchNorm(5), nn.BatchNorm1d(5)
    for layer in (ours, reference):
        layer(draw(8, 5, dtype=torch.float32))
        layer.track_running_stats = False
    x = draw(8, 5, seed=1, dtype=torch.float32)
    assert_close(ours(x), reference(x))
    assert_close(ours.state_dict(), reference.state_dict())
    assert ours.num_batches_tracked.item() == 1
    assert_close(ours.eval()(x), reference.eval()(x))


def test_reset_parameters_forgets_everything() -> None:
    layer = BatchNorm(5)
    fresh = {name: value.clone() for name, value in layer.state_dict().items()}
    randomise(layer)
    layer(draw(8, 5, dtype=torch.float32))
    assert not torch.equal(layer.running_mean, fresh["running_mean"])
    layer.reset_parameters()
    assert_close(dict(layer.state_dict()), fresh, rtol=0, atol=0)


def test_half_precision_input_keeps_float32_statistics() -> None:
    ours, reference = BatchNorm(5), nn.BatchNorm1d(5)
    x = draw(16, 5).to(torch.bfloat16)
    assert_close(ours(x), reference(x), rtol=0, atol=0)
    assert ours.running_var.dtype == torch.float32
    unbiased = BatchNorm(5, unbiased=True)
    assert unbiased(x).dtype == torch.bfloat16
    assert_close(unbiased(x).double(), lecture(x.double(), 1e-5), rtol=1e-2, atol=1e-2)  # bfloat16 has 8 bits


def test_an_empty_batch_leaves_the_statistics_alone() -> None:
    for unbiased in (False, True):
        layer = BatchNorm(5, unbiased=unbiased)
        assert layer(torch.zeros(0, 5)).shape == (0, 5)
        assert_close(layer.running_var, torch.ones(5))


@pytest.mark.parametrize("shape", [(1, 5), (1, 5, 1)])
def test_one_value_per_channel_is_refused_in_training_only(shape: tuple[int, ...]) -> None:
    layer = BatchNorm(5)
    with pytest.raises(ValueError, match=r"BatchNorm\(5\): .*\(1, 5.*one value per channel.*at least 2 examples.*eval"):
        layer(torch.zeros(*shape))
    assert layer.num_batches_tracked.item() == 0
    assert layer.eval()(torch.zeros(*shape)).shape == shape
    with pytest.raises(ValueError, match="one value per channel"):
        BatchNorm(5, track_running_stats=False).eval()(torch.zeros(*shape))


@pytest.mark.parametrize(
    ("channel_dim", "shape", "message"),
    [
        (1, (4, 3, 5), r"\(4, 3, 5\) has 3 channels.*expected 5.*for \(N, T, C\) pass channel_dim=-1"),
        (-1, (4, 5, 3), r"\(4, 5, 3\) has 3 channels.*expected 5.*for \(N, C, \*\) pass channel_dim=1"),
        (1, (4, 7), r"BatchNorm\(5, channel_dim=1\): input of shape \(4, 7\) has 7 channels.*expected 5\.$"),
        (1, (5,), r"\(5,\) has too few dimensions; expected \(N, C\)"),
        (-1, (5,), r"\(5,\) has too few dimensions; expected \(N, C\)"),
    ],
)
def test_a_wrong_shape_is_explained(channel_dim: int, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BatchNorm(5, channel_dim=channel_dim)(torch.zeros(*shape))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"eps": -1e-5}, r"normalization\.eps=-1e-05: expected a number of at least 0"),
        ({"eps": float("nan")}, r"normalization\.eps=nan"),
        ({"momentum": 1.5}, r"normalization\.momentum=1\.5: expected a number from 0 to 1, or null"),
        ({"channel_dim": 2}, r"normalization\.channel_dim=2: expected 1 .* or -1"),
    ],
)
def test_arguments_are_checked(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BatchNorm(5, **arguments)


def test_repr_names_what_was_set() -> None:
    assert "5, eps=0.0, momentum=None" in repr(BatchNorm(5, eps=0.0, momentum=None))
    assert "channel_dim=-1, unbiased=True" in repr(BatchNorm(5, channel_dim=-1, unbiased=True))
