"""RMSNorm against torch.nn.RMSNorm and the plain formula."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from bnlm.normalization import RMSNorm, makes_bias_redundant


@pytest.mark.parametrize("shape", [(4, 5), (4, 3, 5)])
def test_matches_torch_and_the_formula(shape: tuple[int, ...]) -> None:
    x = 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 2
    ours, reference = RMSNorm(5, eps=1e-3, dtype=torch.float64), nn.RMSNorm(5, eps=1e-3, dtype=torch.float64)
    ours.load_state_dict({"weight": torch.linspace(0.5, 2, 5)})
    reference.load_state_dict(ours.state_dict())
    formula = x / torch.sqrt(x.square().mean(-1, keepdim=True) + 1e-3) * ours.weight
    assert_close(ours(x), formula, rtol=1e-12, atol=1e-12)
    assert_close(ours(x), reference(x), rtol=0, atol=0)
    ours.reset_parameters()
    assert ours.weight.tolist() == [1] * 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_eps_it_is_torchs(dtype: torch.dtype) -> None:
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert_close(RMSNorm(5, dtype=dtype)(x), nn.RMSNorm(5, dtype=dtype)(x), rtol=0, atol=0)


def test_a_shift_is_not_removed() -> None:
    layer, x = RMSNorm(5), torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    assert not makes_bias_redundant(layer)
    assert not torch.allclose(layer(x + torch.arange(5)), layer(x), atol=0.1)


def test_copies() -> None:
    layer, x = RMSNorm(5), torch.randn(4, 5)
    for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert copied(x).equal(layer(x))


@pytest.mark.parametrize("shape", [(5,), (4, 7), (4, 5, 3)])
def test_a_wrong_shape_is_explained(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"RMSNorm\(5\): input of shape .*expected \(N, 5\) or \(N, T, 5\)"):
        RMSNorm(5)(torch.zeros(*shape))


def test_eps_is_checked() -> None:
    with pytest.raises(ValueError, match=r"normalization\.eps=-1: expected a number of at least 0, or null"):
        RMSNorm(5, eps=-1)
