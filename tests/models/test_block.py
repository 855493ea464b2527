"""The block: what it computes, and when its Linear has a bias."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from bnlm.models import Block
from bnlm.normalization import BatchNorm, LayerNorm


@pytest.mark.parametrize(
    ("normalization", "has_bias"),
    [(None, True), (nn.Identity, True), (BatchNorm, False), (nn.BatchNorm1d, False), (LayerNorm, True)],
)
def test_linear_has_a_bias_unless_the_normalization_removes_it(normalization, has_bias: bool) -> None:
    block = Block(4, 5, normalization, nn.Tanh())
    assert (block.linear.bias is not None) is has_bias


def test_an_identity_is_left_out() -> None:
    assert Block(4, 5, nn.Identity).normalization is None
    assert list(dict(Block(4, 5, nn.Identity).named_modules())) == ["", "linear"]


def test_order_is_linear_normalization_activation() -> None:
    torch.manual_seed(0)
    block = Block(4, 5, LayerNorm, nn.ReLU())
    x = torch.randn(3, 4)
    z = x @ block.linear.weight.T + block.linear.bias
    z = (z - z.mean(1, keepdim=True)) / torch.sqrt(z.var(1, keepdim=True, correction=0) + 1e-5)
    assert_close(block(x), z.clamp(min=0))
    bare = Block(4, 5)
    assert_close(bare(x), x @ bare.linear.weight.T + bare.linear.bias)
