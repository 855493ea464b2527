"""A bounded look at a large activation."""

from functools import lru_cache

import torch
from torch import Tensor

#: Elements of one activation that are looked at, per call: more would cost more than they tell.
MAX_ELEMENTS = 1 << 18
#: The golden ratio's share of one: multiples of it are spread evenly, and in step with no period.
GOLDEN = 0.6180339887498949


def bounded(x: Tensor, channel_dim: int) -> Tensor:
    """Return `x`, or a copy of slices of it that hold at most about `MAX_ELEMENTS` elements and all channels.

    Examples (dimension 0) are thinned first, then the positions of the largest remaining dimension: one of each so many
    in a row, at another place in each such row, for examples may come in pairs, and the frames of films in turns.
    """
    while x.numel() > MAX_ELEMENTS:
        candidates = [d for d in range(x.ndim) if d != channel_dim % x.ndim and x.shape[d] > 1]
        if not candidates:
            return x
        dim = candidates[0] if candidates[0] == 0 else max(candidates, key=lambda d: x.shape[d])
        row = min(x.shape[dim], -(-x.numel() // MAX_ELEMENTS))
        x = x.index_select(dim, _one_of_each(row, x.shape[dim], x.device))
    return x


@lru_cache(maxsize=256)
def _one_of_each(row: int, length: int, device: torch.device) -> Tensor:
    """Return the index of one of each `row` in a row, of `length` in all."""
    starts = torch.arange(0, length, row)
    within = (torch.arange(len(starts), dtype=torch.float64) * GOLDEN % 1 * row).long()
    return (starts + within).clamp_max(length - 1).to(device)
