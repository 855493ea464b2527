"""The histogram against numpy's."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from bnlm.stats import BINS, bin_edges, histogram


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


CASES = {
    "normal": drawn(50, 40),
    "tanh": torch.tanh(3 * drawn(30, 20)),
    "narrow, far from zero": 1e3 + 1e-2 * drawn(400),
    "bfloat16": drawn(300).bfloat16(),
    "whole numbers on the edges": torch.arange(-32.0, 33.0).repeat(3),
    "whole numbers between them": torch.tensor([0.0, 1, 2, 3, 4, 5, 6, 7, 7, 7]),
    "steps of a tenth": torch.arange(0, 65) / 10,
    "two values": torch.tensor([-2.0, 5.0, 5.0]),
}


@pytest.mark.parametrize("name", CASES)
def test_matches_numpy(name: str) -> None:
    x = CASES[name]
    exact = x.double().numpy().reshape(-1)
    counts, edges = np.histogram(exact, bins=BINS)
    got = histogram(x)
    assert got.shape == (2 + BINS,)
    assert got[:2].tolist() == [exact.min(), exact.max()]
    assert got[2:].tolist() == counts.tolist()
    np.testing.assert_allclose(bin_edges(*got[:2].tolist()), edges, rtol=1e-12, atol=1e-12)


def test_a_constant_is_in_the_first_bin() -> None:
    assert histogram(torch.full((4, 3), 0.1)).tolist() == [np.float32(0.1)] * 2 + [12] + [0] * (BINS - 1)


def test_values_that_are_not_finite_are_left_out() -> None:
    x = drawn(100)
    dirty = torch.cat([torch.tensor([math.nan, math.inf]), x, torch.tensor([-math.inf])])
    assert histogram(dirty).equal(histogram(x))


@pytest.mark.parametrize("x", [torch.empty(0, 3), torch.tensor([math.nan, math.inf])], ids=["empty", "none finite"])
def test_without_values_there_are_no_limits(x: Tensor) -> None:
    got = histogram(x)
    assert got[:2].isnan().all()
    assert got[2:].sum() == 0
