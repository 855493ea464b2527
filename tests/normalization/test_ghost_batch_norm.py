"""GhostBatchNorm against torch.nn.BatchNorm on each virtual batch."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from bnlm.normalization import BatchNorm, GhostBatchNorm, makes_bias_redundant


def drawn(*shape: int) -> torch.Tensor:
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 2


@pytest.mark.parametrize(("n", "sizes"), [(12, [4, 4, 4]), (14, [5, 5, 4]), (7, [7]), (8, [4, 4]), (3, [3])])
def test_each_part_is_normalised_by_itself(n: int, sizes: list[int]) -> None:
    ours, reference = GhostBatchNorm(5, 4, dtype=torch.float64), nn.BatchNorm1d(5, dtype=torch.float64)
    x = drawn(n, 5).requires_grad_()
    theirs = x.detach().clone().requires_grad_()
    out, expected = ours(x), torch.cat([reference(part) for part in theirs.split(sizes)])
    assert_close(out, expected, rtol=1e-12, atol=1e-12)
    assert_close(ours.state_dict(), reference.state_dict(), rtol=1e-12, atol=1e-12)
    weights = drawn(n, 5).cos()
    (out * weights).sum().backward()
    (expected * weights).sum().backward()
    assert_close(x.grad, theirs.grad, rtol=1e-10, atol=1e-12)
    assert_close(ours.weight.grad, reference.weight.grad, rtol=1e-12, atol=1e-12)
    ours.eval(), reference.eval()
    assert_close(ours(x), reference(x), rtol=1e-12, atol=1e-12)


def test_examples_are_split_not_positions() -> None:
    x = drawn(6, 3, 5)
    layer, part = GhostBatchNorm(5, 3, channel_dim=-1, dtype=torch.float64), BatchNorm(5, dtype=torch.float64)
    expected = torch.cat([part(x[half].reshape(-1, 5)).view(3, 3, 5) for half in (slice(0, 3), slice(3, None))])
    assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)


def test_the_size_is_checked() -> None:
    for wrong in (1, 2.5, True):
        with pytest.raises(
            ValueError, match=rf"normalization\.ghost_size={wrong}: expected a whole number of at least"
        ):
            GhostBatchNorm(5, wrong)


def test_one_value_per_channel_is_explained() -> None:
    with pytest.raises(ValueError, match="has one value per channel"):
        GhostBatchNorm(5, 4)(torch.zeros(1, 5))


def test_copies_and_bias() -> None:
    layer, x = GhostBatchNorm(5, 4), torch.randn(8, 5)
    assert makes_bias_redundant(layer)
    assert_close(layer(x + 3), layer(x), atol=1e-5, rtol=0)
    for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert copied(x).equal(layer(x))
