"""A bounded look keeps all channels, few elements, and evenly spaced ones."""

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


def test_slices_are_evenly_spaced() -> None:
    x = torch.arange(4 * MAX_ELEMENTS).reshape(-1, 2)
    seen = bounded(x, 1)
    assert seen.equal(x[::4])


def test_what_is_small_is_looked_at_whole() -> None:
    x = torch.zeros(MAX_ELEMENTS // 8, 8)
    assert bounded(x, 1) is x
    assert bounded(torch.tensor(2.0), -1) == 2.0


def test_channels_alone_are_never_thinned() -> None:
    x = torch.zeros(1).expand(1, MAX_ELEMENTS + 1)
    assert bounded(x, 1).shape == x.shape
    assert bounded(x, -1).shape == x.shape
