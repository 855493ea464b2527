"""Moments of a tensor as sums, so that parts seen at different times or on different ranks can be pooled.

The sums are float64 where the device has it: the mean of thousands of tanh outputs is close to zero, and a float32 sum
would lose the digits that matter. The squares are of the deviations from the mean: with plain squares, rounding would
give a parameter that has one value everywhere a small spread, and what is divided by it would be a huge number.
"""

import threading
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor


def accumulation_dtype(device: torch.device) -> torch.dtype:
    """Return float64, or float32 on Apple's GPUs, which have no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def moment_sums(x: Tensor) -> Tensor:
    """Return `(3,)`: number of elements of `x` (any shape), sum, sum of squared deviations from the mean."""
    dtype = accumulation_dtype(x.device)
    x = _widened(x)
    total = x.sum(dtype=dtype)
    squares = torch.linalg.vector_norm(x - total / x.numel(), dtype=dtype).square()
    return torch.stack([torch.full_like(total, x.numel()), total, squares])


def moment_sums_of(tensors: Sequence[Tensor]) -> Tensor:
    """Return `(len(tensors), 3)`: `moment_sums` of each, with fewer calls than one after the other.

    Of tensors on several devices, the sums are on the first one's.
    """
    first, *others = {t.device: None for t in tensors}
    if others:
        return torch.stack([moment_sums(t).to(first) for t in tensors])
    if first.type != "cpu":
        return _reduced_one_by_one(tensors)
    rows: list[Tensor] = []
    block: list[Tensor] = []
    held = 0
    for tensor in tensors:
        size = tensor.numel()
        if block and held + size > _Scratch.SIZE:
            rows.append(_reduced_together(block))
            block, held = [], 0
        if 0 < size <= _Scratch.SIZE:
            block.append(tensor)
            held += size
            continue
        if block:
            rows.append(_reduced_together(block))
            block, held = [], 0
        rows.append(moment_sums(tensor)[None])
    if block:
        rows.append(_reduced_together(block))
    return rows[0] if len(rows) == 1 else torch.cat(rows)


class _Scratch(threading.local):
    """Room for float64 copies, kept: to get and give back a megabyte each time costs more than the arithmetic in it."""

    SIZE = 1 << 17

    def __init__(self) -> None:
        self.room: Tensor | None = None

    def filled(self, tensors: Sequence[Tensor], size: int) -> np.ndarray:
        if self.room is None:
            self.room = torch.empty(self.SIZE, dtype=torch.float64)
        out = self.room[:size]
        torch.cat([t.detach().reshape(-1) for t in tensors], out=out)
        return out.numpy()


_scratch = _Scratch()


def _reduced_together(tensors: Sequence[Tensor]) -> Tensor:
    """Return `(len(tensors), 3)` of small tensors on the CPU, none of them empty, joined in one array."""
    counted = [t.numel() for t in tensors]
    starts = [0, *accumulate(counted)]
    with np.errstate(all="ignore"):  # nan and inf are what is to be reported
        joined = _scratch.filled(tensors, starts.pop())
        totals = np.add.reduceat(joined, starts)
        for start, count, mean in zip(starts, counted, (totals / counted).tolist(), strict=True):
            joined[start : start + count] -= mean
        np.multiply(joined, joined, out=joined)
        return torch.from_numpy(np.stack([counted, totals, np.add.reduceat(joined, starts)], axis=1))


def _reduced_one_by_one(tensors: Sequence[Tensor]) -> Tensor:
    dtype = accumulation_dtype(tensors[0].device)
    counted = [t.numel() for t in tensors]
    wide = [_widened(t) for t in tensors]
    totals = torch.stack([t.sum(dtype=dtype) for t in wide])
    counts = torch.tensor(counted, dtype=dtype, device=totals.device)
    deviations = torch._foreach_sub(wide, (totals / counts).unbind())
    norms = torch.stack(list(torch._foreach_norm(deviations, 2, dtype=dtype)))
    return torch.stack([counts, totals, norms * norms], dim=1)


def pooled(a: Tensor, b: Tensor) -> Tensor:
    """Return the moment sums `(..., 3)` of two sets of elements together from those of each.

    Source: Chan, Golub and LeVeque 1979, "Updating formulae and a pairwise algorithm for computing sample variances".
    """
    (n, total, squares), (m, other_total, other_squares) = a.unbind(-1), b.unbind(-1)
    between = (m * total - n * other_total).square() / (n * m * (n + m)).clamp_min(1)  # 0 if either is empty
    return torch.stack([n + m, total + other_total, squares + other_squares + between], dim=-1)


def mean_of(sums: Tensor) -> Tensor:
    """Return the mean from moment sums `(..., 3)`, shape `(...)`."""
    return sums[..., 1] / sums[..., 0]


def std_of(sums: Tensor) -> Tensor:
    """Return the standard deviation from moment sums `(..., 3)`, shape `(...)`.

    With n - 1 in the denominator, as `torch.std` has it and the lecture uses it; nan for fewer than two elements.
    """
    return (sums[..., 2] / (sums[..., 0] - 1).clamp_min(0)).sqrt()


def square_sum_of(sums: Tensor) -> Tensor:
    """Return the sum of squares (about zero) from moment sums `(..., 3)`, shape `(...)`."""
    return sums[..., 2] + sums[..., 1].square() / sums[..., 0].clamp_min(1)


def _widened(x: Tensor) -> Tensor:
    # A small copy in full precision is cheaper than reductions that convert; a large one would cost memory.
    small = accumulation_dtype(x.device) if x.numel() <= 1 << 20 else torch.float32
    return x.detach().to(torch.promote_types(x.dtype, small))
