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


def test_bias_can_be_left_out_as_in_torch() -> None:
    ours = BatchNorm(5, bias=False, dtype=torch.float64)
    randomise(ours)
    x = draw(8, 5)
    expected = (x - x.mean(0)) / torch.sqrt(x.var(0, correction=0) + 1e-5) * ours.weight
    assert_close(ours(x), expected, rtol=1e-12, atol=1e-12)
    assert "bias" not in ours.state_dict()
    assert "bias=False" in repr(ours)
    ours.reset_parameters()
    assert_close(ours.weight, torch.ones(5, dtype=torch.float64), rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(0, 5), (4, 5, 0), (0, 5, 3, 2)])
@pytest.mark.parametrize("variant", [{}, {"momentum": None}, {"affine": False}])
def test_empty_batches_do_as_torchs(variant: dict, shape: tuple[int, ...]) -> None:
    torch_class = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}[len(shape)]
    ours, reference = BatchNorm(5, **variant), torch_class(5, **variant)
    for layer in (ours, reference):
        filled = draw(*(n or 2 for n in shape), dtype=torch.float32)
        x = torch.zeros(shape, requires_grad=True)
        layer(filled)
        y = layer(x)
        y.sum().backward()
        assert y.shape == x.grad.shape == shape
        assert all(p.grad.eq(0).all() for p in layer.parameters())
        layer(filled + 1)
        assert layer.eval()(x).shape == shape
    assert_close(ours.state_dict(), reference.state_dict())
    assert ours.num_batches_tracked.item() == 3


@pytest.mark.parametrize("unbiased", [False, True])
def test_a_constant_channel_gives_its_bias_and_no_gradient(unbiased: bool) -> None:
    layer = BatchNorm(3, unbiased=unbiased, dtype=torch.float64)
    randomise(layer)
    x = draw(8, 3)
    x[:, 1] = 7.25
    x.requires_grad_()
    y = layer(x)
    y.backward(draw(8, 3, seed=1))
    assert_close(y[:, 1], layer.bias[1].expand(8), rtol=0, atol=1e-12)
    centred = draw(8, 3, seed=1)[:, 1]
    centred = centred - centred.mean()  # what is left of the formula where x - mean is 0
    assert_close(x.grad[:, 1], layer.weight[1].detach() / 1e-5**0.5 * centred, rtol=1e-10, atol=1e-10)
    assert_close(layer.running_var[1].item(), 0.9)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("shape", [(512, 7), (64, 7, 9, 5)])
def test_a_mean_of_1e4_beside_a_standard_deviation_of_1(shape: tuple[int, ...], channels_last: bool) -> None:
    """At 1e4 float32 has steps of 1e-3; 2e-2 is twenty of them, what the kernel's sum of 3,000 values may lose."""
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(0)) + 1e4
    if channels_last and len(shape) == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    g = torch.randn(*shape, generator=torch.Generator().manual_seed(1))
    results = []
    for dtype in (torch.float32, torch.float64):
        layer, given = BatchNorm(7, dtype=dtype), x.to(dtype, copy=True).requires_grad_()
        y = layer(given)
        y.backward(g.to(dtype))
        results.append([t.double() for t in (y, given.grad, layer.running_mean, layer.running_var)])
    (y, grad, mean, var), (exact_y, exact_grad, exact_mean, exact_var) = results
    assert_close(y, exact_y, rtol=0, atol=2e-2)
    assert_close(grad, exact_grad, rtol=0, atol=5e-3)
    assert_close(mean, exact_mean, rtol=2e-6, atol=0)
    assert_close(var, exact_var, rtol=1e-4, atol=0)


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("layout", ["channels_last", "channels_last_3d", "sliced", "transposed", "expanded"])
def test_any_memory_layout(layout: str, unbiased: bool) -> None:
    x = draw(4, 5, 3, 2) if layout != "channels_last_3d" else draw(4, 5, 3, 2, 2)
    if layout.startswith("channels_last"):
        given = x.contiguous(memory_format=getattr(torch, layout))
    elif layout == "sliced":
        given, x = draw(8, 10, 3, 2)[::2, ::2], draw(8, 10, 3, 2)[::2, ::2].contiguous()
    elif layout == "transposed":
        given = x.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0)
    else:
        given = draw(4, 5, 1, 2).expand(4, 5, 3, 2)
        x = given.contiguous()
    results = []
    for values in (given, x):
        layer = BatchNorm(5, unbiased=unbiased, dtype=torch.float64)
        leaf = values.detach().requires_grad_()
        y = layer(leaf)
        y.pow(3).sum().backward()
        results.append([y, leaf.grad, layer.running_mean, layer.running_var])
    assert given.stride() != x.stride()
    assert_close(*results, rtol=1e-10, atol=1e-10)
    if layout.startswith("channels_last"):
        assert results[0][0].is_contiguous(memory_format=getattr(torch, layout))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("unbiased", [False, True])
def test_half_precision_takes_its_statistics_in_float32(unbiased: bool, dtype: torch.dtype) -> None:
    """4096 values around 100: a sum in half precision could not tell one from the next."""
    x = (draw(4096, 5) / 3 + 100).to(dtype)
    layer = BatchNorm(5, unbiased=unbiased, momentum=1.0)
    y = layer(x)
    assert y.dtype == dtype
    assert_close(layer.running_mean.double(), x.double().mean(0), rtol=1e-6, atol=0)
    assert_close(layer.running_var.double(), x.double().var(0), rtol=1e-4, atol=0)
    assert_close(y.double(), BatchNorm(5, unbiased=unbiased).double()(x.double()), rtol=2**-8, atol=2**-8)


def test_loads_a_state_dict_from_before_the_counter() -> None:
    state = nn.BatchNorm1d(5).state_dict()
    del state["num_batches_tracked"]
    state._metadata[""]["version"] = 1
    layer = BatchNorm(5)
    layer.load_state_dict(state)
    assert layer.num_batches_tracked.item() == 0


def test_torchs_update_bn_finds_the_layer() -> None:
    ours, reference = (nn.Sequential(nn.Linear(3, 5), norm(5)).double() for norm in (BatchNorm, nn.BatchNorm1d))
    reference.load_state_dict(ours.state_dict())
    for model in (ours, reference):
        torch.optim.swa_utils.update_bn([draw(8, 3), draw(6, 3, seed=1)], model)
    assert_close(ours.state_dict(), reference.state_dict(), rtol=1e-12, atol=1e-12)
    assert ours[1].running_mean.abs().min() > 0
