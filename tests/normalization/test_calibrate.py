"""Calibrated statistics against those of the whole set in one batch, and against closed forms."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils.data import DataLoader, TensorDataset

from bnlm.normalization import BatchNorm, calibrate

EXACT = {"rtol": 1e-10, "atol": 1e-10}


def draw(*shape: int) -> Tensor:
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 2


def batches(x: Tensor, size: int) -> DataLoader:
    return DataLoader(TensorDataset(x, torch.zeros(len(x))), batch_size=size)


def deep(norm: Callable[[int], nn.Module]) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [
        nn.Linear(3, 5),
        norm(5),
        nn.Tanh(),
        nn.Dropout(0.5),
        nn.Linear(5, 4),
        norm(4),
        nn.ReLU(),
        nn.Linear(4, 2),
    ]
    return nn.Sequential(*layers).double()


def whole_set_statistics(model: nn.Sequential, x: Tensor) -> dict[str, Tensor]:
    """The statistics of each layer's input when the whole set goes through the layers in eval, one after the other."""
    model = copy.deepcopy(model).eval()
    for layer in model:
        if isinstance(layer, (BatchNorm, nn.BatchNorm1d)):
            layer.running_mean, layer.running_var = x.mean(0).detach(), x.var(0).detach()
        x = layer(x)
    return {k: v for k, v in model.state_dict().items() if "running" in k}


@pytest.mark.parametrize("norm", [BatchNorm, nn.BatchNorm1d])
@pytest.mark.parametrize("size", [1, 7, 23])
def test_deep_network_sees_the_whole_set_at_once(size: int, norm: Callable[[int], nn.Module]) -> None:
    model, x = deep(norm), draw(23, 3)
    for batch in x.split(8)[:2]:
        model(batch)
    expected = whole_set_statistics(model, x)
    before = copy.deepcopy(model.state_dict())
    model[2].eval()
    training = [module.training for module in model]
    calibrate(model, batches(x, size))
    after = model.state_dict()
    assert_close({k: after[k] for k in expected}, expected, **EXACT)
    assert not torch.allclose(before["5.running_var"], after["5.running_var"], rtol=0.05)
    unchanged = [k for k in after if k not in expected]
    assert_close([after[k] for k in unchanged], [before[k] for k in unchanged], rtol=0, atol=0)
    assert [module.training for module in model] == training


@pytest.mark.parametrize(
    ("layer", "shape", "dims"),
    [
        (BatchNorm(4), (6, 4), (0,)),
        (BatchNorm(4), (6, 4, 2, 3), (0, 2, 3)),
        (BatchNorm(4, channel_dim=-1, unbiased=True, momentum=None), (6, 3, 4), (0, 1)),
        (nn.BatchNorm2d(4), (6, 4, 2, 3), (0, 2, 3)),
        (nn.SyncBatchNorm(4), (6, 4, 3), (0, 2)),
    ],
)
def test_one_layer_has_the_lectures_mean_and_unbiased_variance(
    layer: nn.Module, shape: tuple[int, ...], dims: tuple[int, ...]
) -> None:
    x = draw(*shape)
    layer = copy.deepcopy(layer).double()
    calibrate(layer, x.split(4))
    assert_close(layer.running_mean, x.mean(dims), **EXACT)
    assert_close(layer.running_var, x.var(dims, correction=1), **EXACT)


def test_a_small_variance_beside_a_large_mean_survives_float32() -> None:
    x = torch.randn(999, 4, generator=torch.Generator().manual_seed(0)) + 1e4
    layer = BatchNorm(4)
    calibrate(layer, x.split(10))
    assert_close(layer.running_var.double(), x.double().var(0), rtol=1e-6, atol=0)


def test_layers_are_done_in_the_order_of_the_forward() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last, self.never, self.first = BatchNorm(3), BatchNorm(7), BatchNorm(3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(x).tanh())

    model, x = Backwards().double(), draw(20, 3)
    calibrate(model, x.split(6))
    inner = ((x - x.mean(0)) / torch.sqrt(x.var(0) + 1e-5)).tanh()
    assert_close(model.last.running_mean, inner.mean(0), **EXACT)
    assert_close(model.last.running_var, inner.var(0), **EXACT)
    assert_close(model.never.running_var, torch.ones(7).double(), rtol=0, atol=0)


def test_a_compiled_model_is_calibrated_too() -> None:
    model, x = deep(BatchNorm), draw(20, 3)
    expected = whole_set_statistics(model, x)
    model.compile(backend="eager")
    with torch.no_grad():
        model.eval()(x)  # compiled before any hook is there
    calibrate(model, x.split(6))
    assert_close({k: v for k, v in model.state_dict().items() if k in expected}, expected, **EXACT)


def test_what_cannot_be_calibrated_is_told() -> None:
    x = draw(6, 3)
    with pytest.raises(ValueError, match=r"model=Linear: has no BatchNorm with running statistics"):
        calibrate(nn.Linear(3, 2).double(), [x])
    with pytest.raises(ValueError, match="has no BatchNorm with running statistics"):
        calibrate(BatchNorm(3, track_running_stats=False), [x])
    with pytest.raises(ValueError, match=r"loader=.*can be iterated once only"):
        calibrate(BatchNorm(3), iter([x]))
    with pytest.raises(ValueError, match=r"loader=\[\]: is empty"):
        calibrate(BatchNorm(3), [])
    with pytest.raises(ValueError, match=r"gives the layer 1 values per channel; a variance needs at least 2"):
        calibrate(BatchNorm(3).double(), [x[:1]])

    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = BatchNorm(3)

        def forward(self, x: Tensor) -> Tensor:
            return x

    with pytest.raises(ValueError, match=r"model=Unused: its forward calls none of norm\."):
        calibrate(Unused(), [x])
