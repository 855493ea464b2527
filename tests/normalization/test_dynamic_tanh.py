"""DynamicTanh against the plain formula in float64."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch.testing import assert_close

from bnlm.normalization import DynamicTanh, makes_bias_redundant


@pytest.mark.parametrize("shape", [(4, 5), (4, 3, 5)])
def test_matches_the_formula(shape: tuple[int, ...]) -> None:
    x = 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    layer = DynamicTanh(5, alpha=0.7, dtype=torch.float64)
    weight, bias = torch.linspace(0.5, 2, 5, dtype=torch.float64), torch.linspace(-1, 1, 5, dtype=torch.float64)
    layer.load_state_dict({"alpha": torch.tensor([0.7], dtype=torch.float64), "weight": weight, "bias": bias})
    e = torch.exp(-2 * 0.7 * x)
    assert_close(layer(x), (1 - e) / (1 + e) * weight + bias, rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(
        lambda x, *p: torch.func.functional_call(layer, dict(zip(("alpha", "weight", "bias"), p, strict=True)), x),
        (x.requires_grad_(), *layer.parameters()),
    )


def test_reset_copies_and_bias() -> None:
    layer, x = DynamicTanh(5), torch.randn(4, 5)
    fresh = copy.deepcopy(layer.state_dict())
    assert fresh["alpha"].tolist() == [0.5]
    for parameter in layer.parameters():
        parameter.data.add_(1)
    for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert copied(x).equal(layer(x))
    layer.reset_parameters()
    assert_close(layer.state_dict(), fresh, rtol=0, atol=0)
    assert not makes_bias_redundant(layer)
    assert not torch.allclose(layer(x + 1), layer(x), atol=1e-2)


def test_mistakes_are_explained() -> None:
    with pytest.raises(ValueError, match=r"normalization\.alpha=0: expected a number above 0"):
        DynamicTanh(5, alpha=0)
    with pytest.raises(ValueError, match=r"DynamicTanh\(5\): input of shape \(4, 7\); expected \(N, 5\)"):
        DynamicTanh(5)(torch.zeros(4, 7))
