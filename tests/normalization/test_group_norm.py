"""GroupNorm against torch.nn.GroupNorm and the plain formula."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from bnlm.normalization import GroupNorm, LayerNorm, makes_bias_redundant


def drawn(*shape: int) -> torch.Tensor:
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 2


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 5), (4, 6, 5, 7)])
def test_matches_torch_and_the_formula(shape: tuple[int, ...]) -> None:
    x = drawn(*shape)
    ours, reference = GroupNorm(6, 3, eps=1e-3, dtype=torch.float64), nn.GroupNorm(3, 6, eps=1e-3, dtype=torch.float64)
    ours.load_state_dict({"weight": torch.linspace(0.5, 2, 6), "bias": torch.linspace(-1, 1, 6)})
    reference.load_state_dict(ours.state_dict())
    grouped = x.reshape(4, 3, -1)
    centred = grouped - grouped.mean(-1, keepdim=True)
    normal = (centred / torch.sqrt(centred.square().mean(-1, keepdim=True) + 1e-3)).reshape(shape)
    per_channel = (1, 6, *[1] * (len(shape) - 2))
    assert_close(ours(x), normal * ours.weight.view(per_channel) + ours.bias.view(per_channel), rtol=1e-12, atol=1e-12)
    assert_close(ours(x), reference(x), rtol=0, atol=0)


def test_channels_last_is_each_position_by_itself() -> None:
    x = drawn(4, 5, 6)
    layer = GroupNorm(6, 3, channel_dim=-1, dtype=torch.float64)
    for t in range(5):
        assert_close(layer(x)[:, t], nn.GroupNorm(3, 6, dtype=torch.float64)(x[:, t]), rtol=1e-12, atol=1e-12)
    one_group = GroupNorm(6, 1, channel_dim=-1, dtype=torch.float64)
    assert_close(one_group(x), LayerNorm(6, dtype=torch.float64)(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("channels", "most", "groups"),
    [(32, 8, 8), (27, 8, 3), (100, 8, 5), (6, 6, 6), (5, 8, 5), (7, 6, 1), (200, 32, 25)],
)
def test_groups_divide_the_channels(channels: int, most: int, groups: int) -> None:
    layer = GroupNorm(channels, most)
    assert layer.num_groups == groups
    assert layer(torch.randn(3, channels, 2)).shape == (3, channels, 2)


@pytest.mark.parametrize(("channels", "most", "groups"), [(32, 8, 8), (6, 6, 3), (6, 2, 2), (5, 8, 1), (2, 8, 1)])
def test_a_group_of_channels_last_has_a_variance(channels: int, most: int, groups: int) -> None:
    layer = GroupNorm(channels, most, channel_dim=-1)
    assert layer.num_groups == groups
    out = layer(drawn(3, channels).float())
    assert out.std() > 0.5


@pytest.mark.parametrize(("layer", "shape"), [(GroupNorm(6, 6), (4, 6)), (GroupNorm(1, channel_dim=-1), (4, 3, 1))])
def test_one_value_per_group_is_explained(layer: GroupNorm, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"groups.* one value each.*smaller normalization\.max_groups"):
        layer(torch.zeros(*shape))
    assert layer(torch.zeros(0, *shape[1:])).shape == (0, *shape[1:])


def test_a_bias_is_redundant_where_each_channel_is_a_group() -> None:
    x, shift = drawn(4, 6, 5), torch.arange(6.0, dtype=torch.float64).view(1, 6, 1)
    for groups in (1, 3, 6):
        layer = GroupNorm(6, groups, dtype=torch.float64)
        assert makes_bias_redundant(layer) == torch.allclose(layer(x + shift), layer(x), atol=1e-6) == (groups == 6)


def test_copies() -> None:
    layer, x = GroupNorm(6, 3), torch.randn(4, 6)
    for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert copied(x).equal(layer(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_groups": 0}, r"normalization\.max_groups=0: expected a whole number of at least 1"),
        ({"max_groups": 2.0}, r"normalization\.max_groups=2\.0: expected a whole number"),
        ({"eps": -1}, r"normalization\.eps=-1: expected a number of at least 0"),
        ({"channel_dim": 2}, r"normalization\.channel_dim=2: expected 1 .* or -1"),
    ],
)
def test_options_are_checked(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GroupNorm(6, **options)


@pytest.mark.parametrize(("channel_dim", "shape"), [(1, (6,)), (1, (4, 5)), (1, (4, 5, 6)), (-1, (4, 6, 5))])
def test_a_wrong_shape_is_explained(channel_dim: int, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"GroupNorm\(6, channel_dim=-?1\): input of shape .*expected 6 channels"):
        GroupNorm(6, channel_dim=channel_dim)(torch.zeros(*shape))
