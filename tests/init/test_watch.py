"""What follows a layer is found in the flow of the data, and looking changes nothing."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from bnlm.init import computed_gain, gain_of, initialize, kaiming_normal
from bnlm.init.calls import ACTIVATION_CALLS
from bnlm.normalization import BatchNorm


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Calls(nn.Module):
    """Two linear maps, whatever is given between them, registered the wrong way round."""

    def __init__(self, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.last, self.first = nn.Linear(6, 3), nn.Linear(4, 6)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.between(self.first(x)))


def gains(model: nn.Module, example: object) -> dict[str, float | None]:
    return {r.layer: r.gain for r in initialize(model, kaiming_normal, example=example, generator=seeded())}


@pytest.mark.parametrize(
    ("between", "gain"),
    [
        (torch.relu, math.sqrt(2)),
        (lambda x: x.tanh(), 5 / 3),
        (lambda x: x.relu_(), math.sqrt(2)),
        (torch.special.expit, 1.0),
        (F.gelu, computed_gain(F.gelu)),
        (lambda x: F.gelu(x, approximate="tanh"), computed_gain(lambda z: F.gelu(z, approximate="tanh"))),
        (lambda x: F.elu(x, 0.3), computed_gain(nn.ELU(0.3))),
        (lambda x: F.elu(x, alpha=0.3, inplace=True), computed_gain(nn.ELU(0.3))),
        (lambda x: F.leaky_relu(x, 0.2), math.sqrt(2 / 1.04)),
        (lambda x: F.leaky_relu(x, negative_slope=0.2), math.sqrt(2 / 1.04)),
        (lambda x: F.leaky_relu(input=x), math.sqrt(2 / 1.0001)),
        (lambda x: F.rrelu(x, 0.1, 0.3), math.sqrt(2 / (1 + (0.01 + 0.03 + 0.09) / 3))),
        (lambda x: F.prelu(x, torch.tensor([0.5])), math.sqrt(2 / 1.25)),
        (F.selu, 0.75),
        (lambda x: torch.relu(F.dropout(F.layer_norm(x, (6,)), 0.5)), math.sqrt(2)),
        (lambda x: torch.relu(x.unflatten(1, (2, 3)).transpose(1, 2).flatten(1)), math.sqrt(2)),
        (lambda x: torch.cat([torch.relu(p) for p in x.chunk(2, 1)], 1), math.sqrt(2)),
        (lambda x: torch.relu(x + 1) + x, math.sqrt(2)),
        (lambda x: torch.tanh(torch.relu(x)), math.sqrt(2)),  # the first counts
        (lambda x: torch.tanh(torch.softmax(x, 1)), 1.0),  # not elementwise: nothing of the scale is left
        (lambda x: x, 1.0),
    ],
)
def test_calls_between_layers(between: Callable[[Tensor], Tensor], gain: float) -> None:
    found = gains(Calls(between), torch.randn(5, 4, generator=seeded()))
    assert found == {"first": pytest.approx(gain, rel=1e-5), "last": 1.0}
    blind = {r.layer: r.gain for r in initialize(Calls(between), kaiming_normal)}
    assert blind == {"last": 1.0, "first": 1.0}  # calls cannot be seen in what is registered


@pytest.mark.parametrize("name", sorted(set(ACTIVATION_CALLS.values()) - {"prelu", "threshold"}))
def test_modules_and_calls_have_one_gain(name: str) -> None:
    classes = {kind.lower(): getattr(nn, kind) for kind in nn.modules.activation.__all__}
    module = classes[name.replace("_", "")]()
    call = {"hardshrink": torch.hardshrink}.get(name, getattr(F, name))
    assert gains(Calls(call), torch.randn(5, 4))["first"] == pytest.approx(gain_of(module), rel=1e-9)
    assert gains(Calls(module), torch.randn(5, 4))["first"] == pytest.approx(gain_of(module), rel=1e-9)


def test_the_output_is_the_layer_that_works_last() -> None:
    model, x = Calls(torch.relu), torch.randn(5, 4)
    wanted = {r.layer: r.std_wanted for r in initialize(model, kaiming_normal, output_scale=0.1, example=x)}
    assert wanted == {"last": pytest.approx(0.1 / math.sqrt(6)), "first": pytest.approx(math.sqrt(2 / 4))}


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 5, 3, padding=1), BatchNorm(5)
        self.conv2, self.norm2 = nn.Conv2d(5, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.drop, self.head = nn.Dropout(0.5), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.norm1(self.conv1(x)), inplace=True)
        x = F.silu(x + self.norm2(self.conv2(hidden)))
        return self.head(self.drop(F.adaptive_avg_pool2d(x, 1).flatten(1)))


def test_through_normalizations_of_any_make_and_residual_additions() -> None:
    found = gains(Residual(), torch.randn(4, 3, 6, 7, generator=seeded()))
    assert found == {"conv1": math.sqrt(2), "conv2": pytest.approx(computed_gain(F.silu)), "head": 1.0}


@pytest.mark.parametrize("norm_first", [True, False])
def test_transformer_layers_with_functional_activations(norm_first: bool) -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, activation="gelu", batch_first=True, norm_first=norm_first)
    found = gains(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), torch.randn(3, 5, 8))
    for i in range(2):
        assert found[f"layers.{i}.linear1"] == pytest.approx(computed_gain(F.gelu))
        others = ("self_attn", "self_attn.out_proj", "linear2")
        assert {found[f"layers.{i}.{name}"] for name in others} == {1.0}


def test_several_arguments_and_keywords() -> None:
    class Two(Calls):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return super().forward(x + y)

    pair = {"x": torch.randn(5, 4), "y": torch.randn(5, 4)}
    for example in (pair, tuple(pair.values()), list(pair.values())):
        assert gains(Two(torch.tanh), example)["first"] == 5 / 3


def test_watching_changes_nothing(leftovers: Callable[..., list[str]]) -> None:
    model, x = Residual(), torch.randn(4, 3, 6, 7)
    model.norm2.eval()
    model.head.weight.grad = torch.ones(2, 3)
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.add_(0.25)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    buffers = [id(buffer) for buffer in model.buffers()]
    modes = [module.training for module in model.modules()]
    torch.manual_seed(7)
    random = torch.get_rng_state()
    initialize(model, None, bias=None, output_bias=None, example=x)
    assert_close(dict(model.state_dict()), before, rtol=0, atol=0)
    assert [id(buffer) for buffer in model.buffers()] == buffers
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)
    assert_close(model.head.weight.grad, torch.ones(2, 3))
    assert leftovers(model) == []


def test_a_forward_that_fails_leaves_nothing_behind(leftovers: Callable[..., list[str]]) -> None:
    model = Residual()
    model.eval()
    with pytest.raises(RuntimeError):
        initialize(model, kaiming_normal, example=torch.randn(4, 2, 6, 7))
    assert leftovers(model) == []
    assert not any(module.training for module in model.modules())
    assert model.norm1.num_batches_tracked == 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_compiled_model_is_watched_eagerly() -> None:
    found = gains(torch.compile(Calls(torch.tanh), backend="eager"), torch.randn(5, 4))
    assert list(found.values()) == [1.0, 5 / 3]


def test_the_draws_do_not_depend_on_the_order_of_the_forward() -> None:
    models = [Calls(torch.sigmoid) for _ in range(2)]  # gain 1 seen or not
    for model, example in zip(models, (None, torch.randn(5, 4)), strict=True):
        initialize(model, kaiming_normal, bias=0.5, output_bias=0.5, example=example, generator=seeded())
    assert_close(models[0].state_dict(), models[1].state_dict(), rtol=0, atol=0)
