"""Moments of a tensor as sums, so that parts seen at different times or on different ranks can be pooled.

The sums are float64 where the device has it: the mean of thousands of tanh outputs is close to zero, and a float32 sum
would lose the digits that matter. The squares are of the deviations from the mean: with plain squares, rounding would
give a parameter that has one value everywhere a small spread, and what is divided by it would be a huge number. On the
CPU plain squares are taken first, which is faster, and deviations where those would lose more than four digits of 16.
"""

import threading
from collections.abc import Iterator, Sequence
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

#: Elements that are reduced at a time on the CPU: in float64 they stay in its caches.
BLOCK = 1 << 18
#: Elements whose squares are summed in one call.
PIECE = 10_000
#: Share of the squares that has to be left about the mean: below it, more than four of 16 digits are lost.
CANCELLED = 1e-4


def accumulation_dtype(device: torch.device) -> torch.dtype:
    """Return float64, or float32 on Apple's GPUs, which have no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def moment_sums(x: Tensor) -> Tensor:
    """Return `(3,)`: number of elements of `x` (any shape), sum, sum of squared deviations from the mean."""
    return moment_sums_of([x])[0]


@torch.no_grad()
def moment_sums_of(tensors: Sequence[Tensor], minus: Sequence[Tensor] | None = None) -> Tensor:
    """Return `(len(tensors), 3)`: `moment_sums` of each, with fewer calls than one after the other.

    Of tensors on several devices, the sums are on the first one's.

    Args:
        tensors: Of any shapes and real dtypes.
        minus: If given, what is reduced are the differences `tensors[i] - minus[i]`, of equal shapes.
    """
    first, *others = {t.device: None for t in tensors}
    if others:
        rows = [moment_sums_of([t], None if minus is None else [minus[i]])[0] for i, t in enumerate(tensors)]
        return torch.stack([row.to(first) for row in rows])
    if first.type == "cpu":
        flat = [t.reshape(-1) for t in tensors]
        flat_minus = None if minus is None else [t.reshape(-1) for t in minus]
        return torch.from_numpy(_reduced_in_blocks(flat, [t.numel() for t in flat], flat_minus))
    return _reduced_one_by_one(tensors, minus)


@torch.no_grad()
def moment_sums_of_flat(blocks: Sequence[Tensor], counts: Sequence[Sequence[int]]) -> Tensor:
    """Return `(n, 3)`: the moment sums of tensors that lie one after the other in blocks of memory.

    Args:
        blocks: Of any shape, each contiguous.
        counts: For each block, the elements of the tensors in it.
    """
    sizes = [count for of_block in counts for count in of_block]
    fits = sum(sizes) <= BLOCK
    if fits and all(sizes) and all(block.is_cpu for block in blocks):  # as almost always
        return torch.from_numpy(_reduced(blocks, sizes, None))
    if fits or len(blocks) == 1:
        flat = [block.reshape(-1).split(list(each)) for block, each in zip(blocks, counts, strict=True)]
        return moment_sums_of([t for of_block in flat for t in of_block])
    half = len(blocks) // 2
    parts = [moment_sums_of_flat(blocks[:half], counts[:half]), moment_sums_of_flat(blocks[half:], counts[half:])]
    return torch.cat([part.to(parts[0].device) for part in parts])


class _Room(threading.local):
    """Room for a block, kept: to get and give back a megabyte each time costs more than the arithmetic in it."""

    def __init__(self) -> None:
        self._block = np.empty(0)

    def filled(self, pieces: Sequence[np.ndarray], minus: Sequence[np.ndarray] | None) -> np.ndarray:
        """Return the pieces, one after the other, less those of `minus`, in float64; to be overwritten at will."""
        if not len(self._block):
            self._block = np.empty(BLOCK)
        end = 0
        for index, piece in enumerate(pieces):
            start, end = end, end + len(piece)
            self._block[start:end] = piece
            if minus is not None:
                self._block[start:end] -= minus[index]
        return self._block[:end]


_room = _Room()


def _array(x: Tensor) -> np.ndarray:
    dtype = x.dtype
    return (x if dtype is torch.float32 or dtype is torch.float64 else x.double()).numpy().reshape(-1)


def _blocks(counted: Sequence[int]) -> Iterator[list[tuple[int, int, int]]]:
    """Yield what fits into a block: parts `(index of a tensor, start, end)`, none of them empty."""
    block: list[tuple[int, int, int]] = []
    held = 0
    for index, size in enumerate(counted):
        start = 0
        while start < size:
            end = min(size, start + BLOCK - held)
            block.append((index, start, end))
            held += end - start
            start = end
            if held == BLOCK:
                yield block
                block, held = [], 0
    if block:
        yield block


def _reduced_in_blocks(flat: Sequence[Tensor], counts: Sequence[int], minus: Sequence[Tensor] | None) -> np.ndarray:
    if sum(counts) <= BLOCK and all(counts):
        return _reduced(flat, counts, minus)
    parts = [np.empty((0, 3))]
    owners: list[int] = []  # of each part, which tensor it is of
    for block in _blocks(counts):
        pieces = [flat[index][start:end] for index, start, end in block]
        others = None if minus is None else [minus[index][start:end] for index, start, end in block]
        parts.append(_reduced(pieces, [end - start for _, start, end in block], others))
        owners += [index for index, _, _ in block]
    return pooled_by_owner(torch.from_numpy(np.concatenate(parts)), owners, len(flat)).numpy()


@np.errstate(all="ignore")  # nan and inf are what is to be reported
def _reduced(flat: Sequence[Tensor], counts: Sequence[int], minus: Sequence[Tensor] | None) -> np.ndarray:
    """Return `(len(counts), 3)`: the moment sums of parts of flat tensors, none empty, that fill a block at most."""
    x = _room.filled([_array(piece) for piece in flat], None if minus is None else [_array(piece) for piece in minus])
    ends = list(accumulate(counts))
    starts = [0, *ends[:-1]]
    parts = [x[start:end] for start, end in zip(starts, ends, strict=True)]
    sums = np.empty((len(counts), 3))
    sums[:, 0] = counts
    sums[:, 1] = totals = np.add.reduceat(x, starts)
    squares = np.array([_square_sum(part) for part in parts])
    means = totals / sums[:, 0]
    sums[:, 2] = about_mean = squares - totals * means
    cancelled = ~(about_mean > CANCELLED * squares) & (squares != 0)  # all but constant, or nan
    for index in np.flatnonzero(cancelled).tolist():
        sums[index, 2] = _square_sum(parts[index] - means[index])
    return sums


def _square_sum(x: np.ndarray) -> float:
    # In pieces that no BLAS deals out to threads of its own.
    return np.dot(x, x) if len(x) <= PIECE else sum(_square_sum(x[i : i + PIECE]) for i in range(0, len(x), PIECE))


def _reduced_one_by_one(tensors: Sequence[Tensor], minus: Sequence[Tensor] | None) -> Tensor:
    dtype = accumulation_dtype(tensors[0].device)
    counted = [t.numel() for t in tensors]
    wide = [_widened(t) for t in tensors]
    if minus is not None:
        wide = list(torch._foreach_sub(wide, [_widened(t) for t in minus]))
    totals = torch.stack([t.sum(dtype=dtype) for t in wide])
    counts = torch.tensor(counted, dtype=dtype, device=totals.device)
    deviations = torch._foreach_sub(wide, (totals / counts).unbind())
    norms = torch.stack(list(torch._foreach_norm(deviations, 2, dtype=dtype)))
    return torch.stack([counts, totals, norms * norms], dim=1)


def pooled_by_owner(parts: Tensor, owners: Sequence[int], count: int) -> Tensor:
    """Return `(count, 3)`: the moment sums of each of `count` tensors from those of parts of them.

    Source: Chan, Golub and LeVeque 1979, "Updating formulae and a pairwise algorithm for computing sample variances".

    Args:
        parts: `(P, 3)`.
        owners: Of each part, which tensor it is a part of.
    """
    index = torch.tensor(owners, dtype=torch.int64, device=parts.device)
    sums = parts.new_zeros(count, 3).index_add_(0, index, parts)
    means = (sums[:, 1] / sums[:, 0].clamp_min(1))[index]
    apart = parts[:, 1] / parts[:, 0].clamp_min(1) - means
    apart[apart.abs() <= 8 * torch.finfo(parts.dtype).eps * means.abs()] = 0  # the mean of a constant, rounded
    sums[:, 2].index_add_(0, index, parts[:, 0] * apart.square())
    return sums


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
