"""A bounded look keeps all channels and few elements, and is in step with nothing."""

import pytest
import torch

from bnlm.stats import MAX_ELEMENTS, bounded


@pytest.mark.parametrize(
    ("shape", "dim"),
    [
        ((3 * MAX_ELEMENTS, 2), 1),
        ((700, 50, 33), 2),
        ((3, 40_000, 5), 2),
        ((2, 9, 300, 401), 1),
        ((65, 7, 31, 33), 1),
        ((40, 11, 5, 20, 30), 1),
    ],
    ids=str,
)
def test_channels_stay_and_elements_are_few(shape: tuple[int, ...], dim: int) -> None:
    x = torch.zeros(1).expand(shape)  # no memory needed
    seen = bounded(x, dim)
    assert seen.shape[dim] == shape[dim]
    assert seen.numel() <= 1.01 * MAX_ELEMENTS
    assert seen.numel() >= MAX_ELEMENTS / 4  # and it is no smaller than it has to be


def test_there_is_one_of_each_so_many_in_a_row() -> None:
    x = torch.arange(4 * MAX_ELEMENTS).reshape(-1, 2)
    seen = bounded(x, 1)
    assert seen[:, 0].div(8, rounding_mode="floor").equal(torch.arange(len(seen)))
    assert seen[:, 1].equal(seen[:, 0] + 1)


@pytest.mark.parametrize("times", [2, 3, 7, 32])
@pytest.mark.parametrize("period", [2, 3, 4, 5, 8, 16, 30])
def test_what_comes_in_turns_is_seen_in_the_same_proportion(period: int, times: int) -> None:
    """Pairs one after the other, or frames of films, of which each has its own values."""
    x = (torch.arange(times * MAX_ELEMENTS // 64) % period).float()[:, None].expand(-1, 64)
    counts = torch.bincount(bounded(x, 1)[:, 0].long(), minlength=period).double()
    assert counts.numel() == period
    assert float((counts / counts.sum() * period - 1).abs().max()) < 0.06


@pytest.mark.parametrize(
    ("shape", "dim"), [((64, 64, 56, 56), 1), ((16, 2048, 512), 2), ((24, 32, 20_000), 1)], ids=str
)
def test_all_examples_of_a_map_or_a_sequence_are_seen(shape: tuple[int, ...], dim: int) -> None:
    """A channel may respond to a tenth of the examples, and in each of these everywhere."""
    x = torch.arange(float(shape[0])).reshape(-1, *[1] * (len(shape) - 1)).expand(shape)
    seen = bounded(x, dim)
    assert seen.unique().equal(x.unique())
    assert seen.numel() <= 1.01 * MAX_ELEMENTS


def test_positions_are_left_out_in_all_dimensions() -> None:
    x = torch.arange(56.0)[:, None] * 56 + torch.arange(56.0)
    seen = bounded(x.expand(64, 64, 56, 56), 1)[0, 0]
    assert min(seen.shape) >= 7
    assert seen[0, 0] > 0  # nor is it the corner alone that is seen of a map of one place


def test_what_is_small_is_looked_at_whole() -> None:
    x = torch.zeros(MAX_ELEMENTS // 8, 8)
    assert bounded(x, 1) is x
    assert bounded(torch.tensor(2.0), -1) == 2.0


def test_channels_alone_are_never_thinned() -> None:
    x = torch.zeros(1).expand(1, MAX_ELEMENTS + 1)
    assert bounded(x, 1).shape == x.shape
    assert bounded(x, -1).shape == x.shape
