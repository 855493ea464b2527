"""A bounded look at a large activation."""

import math
from functools import lru_cache

import torch
from torch import Tensor

#: Elements of one activation that are looked at, per call: more would cost more than they tell.
MAX_ELEMENTS = 1 << 18
#: The golden ratio's share of one: multiples of it are spread evenly, and in step with no period.
GOLDEN = 0.6180339887498949


def bounded(x: Tensor, channel_dim: int) -> Tensor:
    """Return `x`, or a copy of slices of it that hold at most about `MAX_ELEMENTS` elements and all channels.

    Of each example (dimension 0) positions are left out first, in all dimensions alike, for those of one example are
    less apart than examples are: one of each so many in a row is taken, at another place in each such row, for examples
    may come in pairs, and the frames of films in turns. Examples are left out where that is not enough.
    """
    positions = [d for d in range(1, x.ndim) if d != channel_dim % x.ndim and x.shape[d] > 1]
    for left, dim in zip(range(len(positions), 0, -1), positions, strict=True):
        row = min(math.ceil((x.numel() / MAX_ELEMENTS) ** (1 / left)), x.shape[dim])
        if row > 1:
            x = x.index_select(dim, _one_of_each(row, x.shape[dim], x.device))
    if x.numel() > MAX_ELEMENTS and channel_dim % x.ndim != 0:
        row = min(math.ceil(x.numel() / MAX_ELEMENTS), x.shape[0])
        x = x.index_select(0, _one_of_each(row, x.shape[0], x.device))
    return x


@lru_cache(maxsize=256)
def _one_of_each(row: int, length: int, device: torch.device) -> Tensor:
    """Return the index of one of each `row` in a row, of `length` in all."""
    starts = torch.arange(0, length, row)
    # From 1 on: a sequence's first position is often one of its own.
    within = (torch.arange(1, len(starts) + 1, dtype=torch.float64) * GOLDEN % 1 * row).long()
    return (starts + within).clamp_max(length - 1).to(device)
