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
BLOCK = 1 << 17


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
        return torch.from_numpy(_reduced_in_blocks(tensors, minus))
    return _reduced_one_by_one(tensors, minus)


class _Room(threading.local):
    """Room for a block, kept: to get and give back a megabyte each time costs more than the arithmetic in it."""

    def __init__(self) -> None:
        self._single: Tensor | None = None
        self._double: Tensor | None = None

    def filled(self, pieces: list[Tensor], size: int, minus: list[Tensor] | None) -> np.ndarray:
        """Return the pieces, flat and of `size` elements together, less those of `minus`, in float64."""
        if self._double is None:
            self._double = torch.empty(BLOCK, dtype=torch.float64)
        out = self._double[:size]
        out.copy_(self._joined(pieces, size))
        if minus is not None:
            out -= self._joined(minus, size)
        return out.numpy()

    def _joined(self, pieces: list[Tensor], size: int) -> Tensor:
        if len(pieces) == 1:
            return pieces[0]
        if any(piece.dtype != torch.float32 for piece in pieces):
            return torch.cat([piece.double() for piece in pieces])
        if self._single is None:
            self._single = torch.empty(BLOCK)
        return torch.cat(pieces, out=self._single[:size])  # converted afterwards: twice as fast


_room = _Room()


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


def _reduced_in_blocks(tensors: Sequence[Tensor], minus: Sequence[Tensor] | None) -> np.ndarray:
    flat = [t.reshape(-1) for t in tensors]
    flat_minus = None if minus is None else [t.reshape(-1) for t in minus]
    counted = [t.numel() for t in flat]
    if sum(counted) <= BLOCK and all(counted):
        return _reduced(flat, counted, flat_minus)
    parts: list[np.ndarray] = [np.empty((0, 3))]
    owners: list[int] = []  # of each part, which tensor it is of
    for block in _blocks(counted):
        pieces = [flat[index][start:end] for index, start, end in block]
        others = None if flat_minus is None else [flat_minus[index][start:end] for index, start, end in block]
        parts.append(_reduced(pieces, [end - start for _, start, end in block], others))
        owners += [index for index, _, _ in block]
    return _joined(np.concatenate(parts), np.array(owners, dtype=int), len(flat))


@np.errstate(all="ignore")
def _joined(parts: np.ndarray, owners: np.ndarray, tensors: int) -> np.ndarray:
    """Return `(tensors, 3)` from the moment sums `(parts, 3)` of their parts: `pooled`, of many at once."""
    sums = np.zeros((tensors, 3))
    np.add.at(sums, owners, parts)
    means = sums[:, 1] / sums[:, 0]
    between = parts[:, 0] * (parts[:, 1] / parts[:, 0] - means[owners]) ** 2
    np.add.at(sums[:, 2], owners, between)
    return sums


@np.errstate(all="ignore")  # nan and inf are what is to be reported
def _reduced(pieces: list[Tensor], counted: list[int], minus: list[Tensor] | None) -> np.ndarray:
    """Return `(len(pieces), 3)`: the moment sums of flat tensors, none empty, that fill a block at most."""
    starts = [0, *accumulate(counted)]
    x = _room.filled(pieces, starts.pop(), minus)
    sums = np.empty((len(counted), 3))
    sums[:, 0] = counted
    np.add.reduceat(x, starts, out=sums[:, 1])
    np.multiply(x, x, out=x)
    squares = np.add.reduceat(x, starts)
    np.subtract(squares, sums[:, 1] ** 2 / sums[:, 0], out=sums[:, 2])
    for index in np.flatnonzero(~(sums[:, 2] > 1e-4 * squares) & (squares != 0)):  # all but constant, or nan
        x = _room.filled([pieces[index]], counted[index], None if minus is None else [minus[index]])
        x -= sums[index, 1] / counted[index]
        sums[index, 2] = x @ x
    return sums


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
