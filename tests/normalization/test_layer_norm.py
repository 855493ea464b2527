"""LayerNorm against torch.nn.LayerNorm and the plain formula."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from bnlm.normalization import LayerNorm


@pytest.mark.parametrize("shape", [(4, 5), (4, 3, 5)])
def test_matches_torch_and_the_formula(shape: tuple[int, ...]) -> None:
    x = 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 2
    ours, reference = LayerNorm(5, eps=1e-3, dtype=torch.float64), nn.LayerNorm(5, eps=1e-3, dtype=torch.float64)
    state = {"weight": torch.linspace(0.5, 2, 5), "bias": torch.linspace(-1, 1, 5)}
    ours.load_state_dict(state)
    reference.load_state_dict(ours.state_dict())
    centred = x - x.mean(-1, keepdim=True)
    formula = centred / torch.sqrt(centred.square().mean(-1, keepdim=True) + 1e-3) * ours.weight + ours.bias
    assert_close(ours(x), formula, rtol=1e-12, atol=1e-12)
    assert_close(ours(x), reference(x), rtol=1e-12, atol=1e-12)
    ours.reset_parameters()
    assert_close(ours(x), nn.functional.layer_norm(x, (5,), eps=1e-3))


@pytest.mark.parametrize("shape", [(5,), (4, 7), (4, 5, 3)])
def test_a_wrong_shape_is_explained(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"LayerNorm\(5\): input of shape .*expected \(N, 5\) or \(N, T, 5\)"):
        LayerNorm(5)(torch.zeros(*shape))


def test_eps_is_checked() -> None:
    with pytest.raises(ValueError, match=r"normalization\.eps=-1: expected a number of at least 0"):
        LayerNorm(5, eps=-1)
