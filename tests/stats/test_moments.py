"""Moments against torch.mean and torch.std in float64."""

import math

import pytest
import torch
from torch import Tensor

from bnlm.stats import mean_of, moment_sums, moment_sums_of, moment_sums_of_flat, pooled_by_owner, square_sum_of, std_of

LARGE = (1 << 20) + 7  # several blocks


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


CASES = {
    "matrix": drawn(13, 7),
    "volume": 3 * drawn(5, 4, 3, 2) - 0.1,
    "two elements": torch.tensor([1.0, 4.0]),
    "not contiguous": drawn(11, 6).t()[::2],
    "far from zero": 1e4 + drawn(501, 3),
    "far from zero, large": 1e4 + drawn(LARGE),
    "large": drawn(LARGE) * 1e-3,
    "bfloat16": drawn(40, 30).bfloat16(),
    "bfloat16, large": drawn(LARGE).bfloat16(),
    "float16": drawn(40, 30).half(),
    "float64": drawn(40, 30).double() * 1e-9 + 1.0,
    "whole numbers": torch.arange(12).reshape(3, 4),
}


@pytest.mark.parametrize("name", CASES)
def test_mean_and_std_match_torch(name: str) -> None:
    x = CASES[name]
    exact = x.double()
    for sums in (moment_sums(x), moment_sums_of([drawn(3, 5), x])[1]):
        assert sums.dtype == torch.float64
        assert sums[0] == x.numel()
        torch.testing.assert_close(mean_of(sums), exact.mean(), rtol=1e-12, atol=1e-15)
        torch.testing.assert_close(std_of(sums), exact.std(), rtol=1e-12, atol=0)
        torch.testing.assert_close(square_sum_of(sums), exact.square().sum(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("count", [2, 200, 33_333, LARGE])
@pytest.mark.parametrize("value", [1.0, 0.1, -1 / 3, 1e4])
def test_a_constant_has_exactly_no_spread(value: float, count: int) -> None:
    """Else a gain of 1 everywhere would have a std of 1e-8, and what is divided by it would be huge."""
    x = torch.full((count,), value)
    assert std_of(moment_sums(x)) == 0
    assert std_of(moment_sums_of([drawn(9), x])[1]) == 0


def test_several_that_hardly_vary_are_each_about_their_own_mean() -> None:
    """Gains near 1 in several layers: the squares alone would have lost most digits of each."""
    x = [center + 1e-4 * drawn(size) for center, size in ((1.0, 7), (-20.0, 300), (0.0, 50), (1e3, 12_000))]
    exact = torch.stack([t.double().std() for t in x])
    torch.testing.assert_close(std_of(moment_sums_of(x)), exact, rtol=1e-10, atol=0)


def test_fewer_than_two_elements_have_no_std() -> None:
    for x in (torch.tensor(3.0), torch.ones(1, 1), torch.empty(0, 4)):
        assert math.isnan(std_of(moment_sums(x)))
        assert moment_sums(x)[1] == x.sum()
    assert math.isnan(mean_of(moment_sums(torch.empty(0))))


def test_values_that_are_not_finite_show() -> None:
    assert math.isnan(std_of(moment_sums(torch.tensor([1.0, math.nan, 2.0]))))
    assert math.isnan(std_of(moment_sums(torch.tensor([1.0, math.inf, 2.0]))))


def test_batched_sums_are_those_of_each_tensor() -> None:
    tensors = [drawn(4, 3), drawn(5).bfloat16(), drawn(LARGE), torch.empty(0)]
    torch.testing.assert_close(moment_sums_of(tensors), torch.stack([moment_sums(x) for x in tensors]), equal_nan=True)


def test_differences_are_those_of_the_tensors_in_float64() -> None:
    before = [drawn(4, 3), drawn(LARGE), drawn(5).bfloat16(), torch.full((70_000,), 0.1)]
    after = [before[0] * 1.0001, before[1] + 1e-4 * drawn(LARGE, seed=1), before[2] * 1.5, before[3] + 0.3]
    sums = moment_sums_of(after, minus=before)
    exact = [a.double() - b.double() for a, b in zip(after, before, strict=True)]
    torch.testing.assert_close(mean_of(sums), torch.stack([x.mean() for x in exact]), rtol=1e-10, atol=0)
    torch.testing.assert_close(std_of(sums)[:3], torch.stack([x.std() for x in exact[:3]]), rtol=1e-12, atol=0)
    assert std_of(sums)[3] == 0


def test_blocks_that_end_within_a_tensor_lose_nothing() -> None:
    tensors = [drawn(1 << 16), drawn(100), drawn(1 << 16, seed=1), drawn((1 << 17) - 100), drawn(3)]
    for x, sums in zip(tensors, moment_sums_of(tensors), strict=True):
        assert sums[0] == x.numel()
        torch.testing.assert_close(std_of(sums), x.double().std(), rtol=1e-12, atol=0)


def test_large_tensors_of_low_precision_are_widened_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """All at once would take four times their memory."""
    x, y = torch.randn(2, 1000, 1000).bfloat16()
    widened: list[int] = []
    double = Tensor.double
    monkeypatch.setattr(Tensor, "double", lambda t: widened.append(t.numel()) or double(t))
    sums = moment_sums_of([x], minus=[y])
    monkeypatch.undo()
    torch.testing.assert_close(sums, moment_sums_of([x.double() - y.double()]), rtol=1e-12, atol=0)
    assert sum(widened) == 2 * x.numel()
    assert max(widened) <= 1 << 18


def test_tensors_in_blocks_of_memory_are_those_by_themselves() -> None:
    """Small blocks are reduced together; one of them is larger than what is, one is of another type, one has holes."""
    sizes = [[5, 70, 1], [3, 66_000, 2], [1000], [0, 4, 0], [30_000, 30_000], [20_000]]
    blocks = [
        3 + drawn(sum(each), seed=i).to(torch.float32 if i != 2 else torch.float64) for i, each in enumerate(sizes)
    ]
    parts = [part for block, each in zip(blocks, sizes, strict=True) for part in block.split(each)]
    expected = torch.stack([moment_sums(part) for part in parts])
    torch.testing.assert_close(moment_sums_of_flat(blocks, sizes), expected, rtol=1e-12, atol=1e-10)


def test_pooled_sums_are_those_of_everything_together() -> None:
    parts = [1e4 + drawn(7, 3), 1e4 + 5 * drawn(50, seed=1), torch.empty(0), torch.full((9,), -1e4)]
    other = drawn(5, 5, seed=2)
    sums = torch.stack([moment_sums(part) for part in (parts[0], other, *parts[1:])])
    pooled = pooled_by_owner(sums, [1, 0, 1, 1, 1], 3)
    together = torch.cat([part.reshape(-1) for part in parts]).double()
    torch.testing.assert_close(mean_of(pooled[1]), together.mean(), rtol=1e-12, atol=0)
    torch.testing.assert_close(std_of(pooled[1]), together.std(), rtol=1e-12, atol=0)
    assert pooled[0].equal(sums[1])
    assert pooled[2].tolist() == [0, 0, 0]


def test_no_graph_is_kept() -> None:
    x = torch.randn(4, 3, requires_grad=True)
    assert not moment_sums(x * 2).requires_grad
    assert not moment_sums_of([x * 2]).requires_grad


@pytest.mark.parametrize("value", [0.1, -1 / 3, 1e4])
def test_parts_of_a_constant_pool_to_exactly_no_spread(value: float) -> None:
    sums = torch.stack([moment_sums(torch.full((count,), value)) for count in (33_333, 70_001, 3)])
    assert std_of(pooled_by_owner(sums, [0, 0, 0], 1)) == 0
    assert std_of(moment_sums(torch.full((500_000,), value))) == 0
