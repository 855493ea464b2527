"""Moments of a tensor as sums, so that parts seen at different times or on different ranks can be pooled.

The sums are float64 where the device has it: the mean of thousands of tanh outputs is close to zero, and a float32 sum
would lose the digits that matter. The squares are of the deviations from the mean: with plain squares, rounding would
give a parameter that has one value everywhere a small spread, and what is divided by it would be a huge number. On the
CPU plain squares are taken first, which is faster, and deviations where those would lose more than four digits of 16.
"""

import threading
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise

import numpy as np
import torch
from torch import Tensor

#: Elements that are reduced at a time on the CPU.
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
        return torch.from_numpy(_reduced(tensors, [[t.numel()] for t in tensors], minus))
    return _reduced_one_by_one(tensors, minus)


@torch.no_grad()
def moment_sums_of_flat(blocks: Sequence[Tensor], counts: Sequence[Sequence[int]]) -> Tensor:
    """Return `(n, 3)`: the moment sums of tensors that lie one after the other in blocks of memory.

    Args:
        blocks: Of any shape, each contiguous.
        counts: For each block, the elements of the tensors in it.
    """
    if all(block.is_cpu for block in blocks):
        return torch.from_numpy(_reduced(blocks, counts, None))
    flat = [block.reshape(-1).split(list(each)) for block, each in zip(blocks, counts, strict=True)]
    return moment_sums_of([t for of_block in flat for t in of_block])


Flattened = np.ndarray | Tensor


class _Room(threading.local):
    """Room for a block, kept: to get and give back a megabyte each time costs more than the arithmetic in it."""

    def __init__(self) -> None:
        self._block = np.empty(0)

    def filled(self, values: Sequence[Flattened], minus: Sequence[Flattened] | None) -> np.ndarray:
        """Return the values one after the other, less those of `minus`, in float64; to be overwritten at will."""
        if not len(self._block):
            self._block = np.empty(BLOCK)
        x = self._block[: sum(map(len, values))]
        np.concatenate([_known(each) for each in values], out=x)
        if minus is not None:
            end = 0
            for each in minus:
                start, end = end, end + len(each)
                x[start:end] -= _known(each)
        return x

    def pieces(self, values: Flattened, minus: Flattened | None, start: int, end: int) -> Iterator[np.ndarray]:
        """Yield the same of the values from `start` to `end`, as much as fits at a time."""
        for low in range(start, end, BLOCK):
            piece = slice(low, min(low + BLOCK, end))
            yield self.filled([values[piece]], None if minus is None else [minus[piece]])


_room = _Room()


def _flat(x: Tensor) -> Flattened:
    """Return all values in a row; what numpy does not know stays a tensor, to be widened piece by piece."""
    return x.numpy().reshape(-1) if x.dtype is torch.float32 or x.dtype is torch.float64 else x.reshape(-1)


def _known(x: Flattened) -> np.ndarray:
    return x if isinstance(x, np.ndarray) else x.double().numpy()


@np.errstate(all="ignore")  # nan and inf are what is to be reported
def _reduced(blocks: Sequence[Tensor], counts: Sequence[Sequence[int]], minus: Sequence[Tensor] | None) -> np.ndarray:
    """Return `(n, 3)`: the moment sums of tensors that lie one after the other in blocks, less those of `minus`."""
    arrays = [_flat(block) for block in blocks]
    others = None if minus is None else [_flat(block) for block in minus]
    parts = [_sums_about_zero(arrays[of], _some(others, of), counts[of]) for of in _fitting(list(map(len, arrays)))]
    sums = np.concatenate(parts) if parts else np.zeros((0, 3))
    means = sums[:, 1] / np.maximum(sums[:, 0], 1)
    about_mean = sums[:, 2] - sums[:, 1] * means
    cancelled = ~(about_mean > CANCELLED * sums[:, 2]) & (sums[:, 2] != 0)  # all but constant, or nan
    if cancelled.any():
        places = _places(np.flatnonzero(cancelled).tolist(), counts)
        values = [arrays[block][place] for block, place in places]
        less = None if others is None else [others[block][place] for block, place in places]
        about = means[cancelled]
        fitting = _fitting(list(map(len, values)))
        squares = [_squares_about(about[of], values[of], _some(less, of)) for of in fitting]
        about_mean[cancelled] = np.concatenate(squares)
    sums[:, 2] = about_mean
    return sums


def _places(rows: Sequence[int], counts: Sequence[Sequence[int]]) -> list[tuple[int, slice]]:
    """Return in which block, and where in it, the tensors of these rows are: few of many."""
    first = list(accumulate(map(len, counts), initial=0))  # row of each block
    found = []
    for row in rows:
        block = bisect_right(first, row) - 1
        of_block, index = counts[block], row - first[block]
        start = sum(of_block[:index])
        found.append((block, slice(start, start + of_block[index])))
    return found


def _some(arrays: Sequence[Flattened] | None, of: slice) -> Sequence[Flattened] | None:
    return None if arrays is None else arrays[of]


def _fitting(sizes: Sequence[int]) -> Iterator[slice]:
    """Yield which of arrays of these sizes follow each other and fit into the room; a larger one comes alone."""
    first, filled = 0, 0
    for index, size in enumerate(sizes):
        if index > first and filled + size > BLOCK:
            yield slice(first, index)
            first, filled = index, 0
        filled += size
    if sizes:
        yield slice(first, len(sizes))


def _squares_about(
    means: np.ndarray, values: Sequence[Flattened], minus: Sequence[Flattened] | None
) -> np.ndarray | list[float]:
    """Return the sum of squared deviations from its mean of each of the arrays, less those of `minus`."""
    sizes = list(map(len, values))
    if sum(sizes) <= BLOCK:
        x = _room.filled(values, minus)
        x -= np.repeat(means, sizes)
        return np.add.reduceat(np.multiply(x, x, out=x), list(accumulate(sizes[:-1], initial=0)))
    pieces = _room.pieces(values[0], None if minus is None else minus[0], 0, sizes[0])
    return [sum(_square_sum(np.subtract(x, means[0], out=x)) for x in pieces)]


def _sums_about_zero(
    arrays: Sequence[Flattened], minus: Sequence[Flattened] | None, counts: Sequence[Sequence[int]]
) -> np.ndarray:
    """Return `(n, 3)`: number of elements of each tensor in the arrays, sum, and sum of squares."""
    sizes = [size for of_array in counts for size in of_array]
    sums = np.zeros((len(sizes), 3))
    sums[:, 0] = sizes
    bounds = list(accumulate(sizes, initial=0))
    if bounds[-1] <= BLOCK:
        some = sums[:, 0] > 0
        if some.any():
            starts = np.array(bounds[:-1])[some]
            x = _room.filled(arrays, minus)
            sums[some, 1] = np.add.reduceat(x, starts)
            sums[some, 2] = np.add.reduceat(np.multiply(x, x, out=x), starts)
    else:
        less = None if minus is None else minus[0]
        for row, place in enumerate(pairwise(bounds)):
            of_pieces = [(np.add.reduce(x), _square_sum(x)) for x in _room.pieces(arrays[0], less, *place)]
            sums[row, 1:] = np.sum(of_pieces, axis=0) if of_pieces else 0
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
