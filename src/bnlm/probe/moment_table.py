"""Moment sums of a step's tensors, by group and name: reduced together, and as late as memory allows."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch._utils import _flatten_dense_tensors

from bnlm.stats import moment_sums_of, moment_sums_of_flat, pooled_by_owner

#: Elements of copies that wait to be reduced: together they take fewer calls, but they take memory.
MAX_WAITING = 1 << 21
#: Tensors with more elements than this together are reduced at once rather than copied: they have no calls to save.
MAX_HELD = 1 << 18


@dataclass
class Sums:
    """Moment sums `(len(names), 3)` (see `stats.moments`), or other numbers in such rows."""

    names: list[str]
    sums: Tensor


@dataclass
class Flat:
    """Tensors one after the other in one block of memory, of any shape and `counts` elements each."""

    values: Tensor
    counts: list[int]


def joined_copy(tensors: Sequence[Tensor], counts: list[int] | None = None) -> Flat | None:
    """Return a copy of small tensors of one kind; None of large ones, and of none.

    Args:
        tensors: Of any shapes.
        counts: Their elements, where such a copy was made of tensors of these shapes and of this kind before.
    """
    if counts is None:
        counts = [t.numel() for t in tensors]
        if not 0 < sum(counts) <= MAX_HELD or len({t.dtype for t in tensors}) + len({t.device for t in tensors}) > 2:
            return None
    joined = _flatten_dense_tensors(tensors)
    return Flat(joined.clone() if len(tensors) == 1 else joined, counts)


class MomentTable:
    """Collects tensors over a step, and reduces what waits in one call: on a small network calls are what costs.

    What comes under one group and name several times is pooled.

    Attributes:
        waiting: Elements that wait.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, tuple[list[str], list[Tensor], list[list[int]]]] = {}
        self.waiting = 0
        self._reduced: dict[str, list[Sums]] = {}

    def add(self, group: str, names: Sequence[str], blocks: Sequence[Tensor], counts: Sequence[list[int]]) -> None:
        """Take in blocks of memory that nobody else will change, each of tensors one after the other.

        Args:
            group: Of sums.
            names: Of all tensors.
            blocks: Of any shape, each contiguous.
            counts: For each block, the elements of the tensors in it.
        """
        if not blocks:
            return
        known, waiting, counted = self._waiting.setdefault(group, ([], [], []))
        known += names
        waiting += blocks
        counted += counts
        self.waiting += sum(map(sum, counts))
        if self.waiting > MAX_WAITING:
            self.reduce()

    def add_all(self, group: str, names: list[str], tensors: Sequence[Tensor]) -> None:
        """Take in tensors: copied, or reduced at once if they are large."""
        copy = joined_copy(tensors)
        if copy is not None:
            self.add(group, names, [copy.values], [copy.counts])
        elif names:
            self.add_sums(group, Sums(names, moment_sums_of(tensors)))

    def add_sums(self, group: str, sums: Sums) -> None:
        """Take in what is reduced already."""
        self._reduced.setdefault(group, []).append(sums)

    def forget(self, group: str, names: Sequence[str]) -> None:
        """Drop what came in under these names."""
        if group in self._waiting:
            self.reduce()
        dropped = set(names)
        if group in self._reduced:
            parts = self._reduced[group]
            self._reduced[group] = [in_order(p, [name for name in p.names if name not in dropped]) for p in parts]

    def reduce(self) -> None:
        """Reduce what waits."""
        reduce_together([self])

    def unreduced(self) -> list[tuple[str, list[str], list[Tensor], list[list[int]]]]:
        """Hand over what waits: groups, names, blocks and what is in them."""
        waiting, self._waiting, self.waiting = self._waiting, {}, 0
        return [(group, *of_group) for group, of_group in waiting.items()]

    def sums(self) -> dict[str, Sums]:
        """Reduce what waits; return all sums by group, each name once."""
        self.reduce()
        return {group: _joined(parts) for group, parts in self._reduced.items()}


def reduce_together(tables: Iterable[MomentTable]) -> None:
    """Reduce what waits in several tables."""
    waiting = [(table, *of_group) for table in tables for of_group in table.unreduced()]
    if waiting:
        blocks = [block for *_, of_group, _ in waiting for block in of_group]
        counts = [count for *_, of_group in waiting for count in of_group]
        rows = moment_sums_of_flat(blocks, counts)
        parts = rows.split_with_sizes([len(names) for _, _, names, _, _ in waiting])
        for (table, group, names, _, _), sums in zip(waiting, parts, strict=True):
            table.add_sums(group, Sums(names, sums))


def in_order(sums: Sums, names: Iterable[str]) -> Sums:
    """Return the rows of those of `names` that there are, in their order."""
    row = {name: index for index, name in enumerate(sums.names)}
    kept = [name for name in names if name in row]
    if kept == sums.names:
        return sums
    return Sums(kept, sums.sums[[row[name] for name in kept]])


def _joined(parts: list[Sums]) -> Sums:
    if len(parts) == 1 and len(set(parts[0].names)) == len(parts[0].names):
        return parts[0]
    names = [name for part in parts for name in part.names]
    sums = torch.cat([part.sums.to(parts[0].sums.device) for part in parts])
    row = {name: index for index, name in enumerate(dict.fromkeys(names))}
    return Sums(list(row), pooled_by_owner(sums, [row[name] for name in names], len(row)))
