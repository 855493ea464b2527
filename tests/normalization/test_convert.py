"""Conversion between torch.nn's layers and ours: the same numbers before, after, and after the next training step."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from bnlm.normalization import BatchNorm, GhostBatchNorm, convert

SHAPES = {nn.BatchNorm1d: (6, 5, 3), nn.BatchNorm2d: (6, 5, 3, 2), nn.BatchNorm3d: (6, 5, 3, 2, 2)}
VARIANTS = [{}, {"momentum": None, "eps": 1e-3}, {"affine": False}, {"track_running_stats": False}, {"bias": False}]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 2


def trained(layer: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    for seed, parameter in enumerate(layer.parameters()):
        parameter.data = draw(*parameter.shape, seed=seed + 1)
    layer(draw(*shape))
    return layer


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("torch_class", SHAPES)
def test_there_and_back(torch_class: type[nn.Module], variant: dict, training: bool) -> None:
    shape = SHAPES[torch_class]
    layer = trained(torch_class(5, **variant, dtype=torch.float64), shape).train(training)
    reference = copy.deepcopy(layer)
    parameters = dict(layer.named_parameters())
    x = draw(*shape, seed=9)
    ours = convert(layer)
    assert type(ours) is BatchNorm
    assert ours.training is training
    assert_close(ours(x), reference(x), rtol=1e-12, atol=1e-12)
    assert_close(ours.state_dict(), reference.state_dict(), rtol=1e-12, atol=1e-12)
    back = convert(ours, to=nn.BatchNorm1d)  # which it came from counts, not this
    assert type(back) is torch_class
    assert back.training is training
    assert_close(back(x), reference(x), rtol=1e-12, atol=1e-12)
    assert_close(back.state_dict(), reference.state_dict(), rtol=1e-12, atol=1e-12)
    assert all(p is parameters[name] for name, p in back.named_parameters())
    for attribute in ("num_features", "eps", "momentum", "affine", "track_running_stats"):
        assert getattr(ours, attribute) == getattr(back, attribute) == getattr(reference, attribute)


def test_a_whole_model_keeps_its_structure_optimizer_and_outputs() -> None:
    shared = nn.BatchNorm2d(4)
    model = nn.Sequential(nn.Conv2d(3, 4, 2), shared, nn.Sequential(nn.ReLU(), shared), GhostBatchNorm(4)).double()
    reference = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    assert convert(model) is model
    assert type(model[1]) is BatchNorm
    assert model[2][1] is model[1]
    assert type(model[3]) is GhostBatchNorm
    assert list(model.state_dict()) == list(reference.state_dict())
    for net, steps in ((model, optimizer), (reference, torch.optim.SGD(reference.parameters(), lr=0.1))):
        net(draw(2, 3, 4, 5)).square().mean().backward()
        steps.step()
    assert_close(model.state_dict(), reference.state_dict(), rtol=1e-10, atol=1e-10)
    convert(model, to=nn.BatchNorm1d)
    assert [type(m) for m in model.modules()] == [type(m) for m in reference.modules()]


def test_sync_and_its_group_are_kept() -> None:
    layer, group = nn.SyncBatchNorm(5), object()
    layer.process_group = group
    ours = convert(layer)
    assert ours.sync
    assert ours.process_group is group
    back = convert(ours, to=nn.BatchNorm2d)
    assert type(back) is nn.SyncBatchNorm
    assert back.process_group is group
    ours.sync = False
    assert type(convert(ours, to=nn.BatchNorm2d)) is nn.BatchNorm2d


@pytest.mark.parametrize("torch_class", SHAPES)
def test_a_layer_built_as_ours_becomes_what_is_asked_for(torch_class: type[nn.Module]) -> None:
    layer = trained(BatchNorm(5, dtype=torch.float64), (6, 5)).eval()
    x = draw(*SHAPES[torch_class], seed=9)
    expected = layer(x)
    converted = convert(nn.Sequential(layer), to=torch_class)
    assert type(converted[0]) is torch_class
    assert_close(converted(x), expected, rtol=1e-12, atol=1e-12)


def test_device_and_type_are_kept() -> None:
    assert convert(nn.BatchNorm1d(5, device="meta", dtype=torch.bfloat16)).running_var.device.type == "meta"
    ours = convert(nn.BatchNorm1d(5, dtype=torch.bfloat16))
    assert ours.weight.dtype == ours.running_mean.dtype == torch.bfloat16
    assert ours.num_batches_tracked.dtype == torch.long


def test_what_has_no_equal_is_refused_and_nothing_changed() -> None:
    for layer in (BatchNorm(5, unbiased=True), BatchNorm(5, channel_dim=-1)):
        model = nn.Sequential(BatchNorm(5), nn.Sequential(layer))
        with pytest.raises(ValueError, match=r"1\.0: BatchNorm\(5, .*\) has no equal in torch\.nn"):
            convert(model, to=nn.BatchNorm1d)
        assert type(model[0]) is BatchNorm
    with pytest.raises(ValueError, match=r"0: LazyBatchNorm1d has no features yet; call the model once"):
        convert(nn.Sequential(nn.LazyBatchNorm1d()))
    with pytest.raises(
        ValueError, match=r"to=<class .*LayerNorm'>: expected .*BatchNorm or one of torch\.nn\.BatchNorm1d"
    ):
        convert(nn.Sequential(), to=nn.LayerNorm)
