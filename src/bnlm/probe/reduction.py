"""What is counted on the outputs of activations, beside their moments: together where layers and steps are alike."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from bnlm.probe.moment_table import MomentTable, Sums
from bnlm.probe.records import StepRecord
from bnlm.stats import BOUNDED, accumulation_dtype, all_over, can_die, flat, responding_units

#: The largest picture of which outputs are flat: examples x units.
MAP_EXAMPLES, MAP_UNITS = 64, 512


@dataclass
class Seen:
    """Copies of one call's input and output (slices of large ones), not yet reduced, and where the results go.

    `input` is None where it was not to be seen.
    """

    record: StepRecord
    table: MomentTable
    layer: str
    kind: str
    input: Tensor | None
    output: Tensor
    channel_dim: int
    limits: tuple[float, float] | None
    to_map: bool


def count(seen: Iterable[Seen]) -> None:
    """Pool which units responded into the records, and how many outputs are flat into the tables' group `flat`."""
    alike: dict[Any, list[Seen]] = {}
    for each in seen:
        output = each.output
        if each.kind in BOUNDED:
            key = (each.kind, output.shape, each.channel_dim, each.limits, output.dtype, output.device)
            alike.setdefault(key, []).append(each)
        elif can_die(each.kind) and output.ndim >= 2:  # `(N,)` and `()` have no dimension of units
            _add_responded(each, responding_units(each.kind, output, each.channel_dim, each.limits))
    for (kind, shape, channel_dim, limits, *_), of_kind in alike.items():
        on_flat = flat(kind, torch.stack([each.output for each in of_kind]), limits)
        _add_flat(of_kind, on_flat)
        if len(shape) < 2:
            continue
        channels = channel_dim % len(shape) + 1
        silent = all_over(on_flat, [d for d in range(1, on_flat.ndim) if d != channels])
        for each, responded in zip(of_kind, (~silent).unbind(), strict=True):
            _add_responded(each, responded)
        for index, each in enumerate(of_kind):
            if each.to_map:
                units = on_flat[index].movedim(channel_dim, -1).reshape(-1, shape[channel_dim])
                each.record.maps.setdefault(each.layer, units[:MAP_EXAMPLES, :MAP_UNITS])


def _add_flat(seen: Sequence[Seen], on_flat: Tensor) -> None:
    """Give each table the moment sums of the booleans `(len(seen), ...)` that are its own."""
    each = on_flat.reshape(len(on_flat), -1)
    true = each.sum(dim=1).to(accumulation_dtype(each.device))
    size = torch.full_like(true, each.shape[1])
    rows = torch.stack([size, true, true - true * true / size], dim=1)
    start = 0
    for _, group in groupby(seen, key=lambda each: id(each.table)):
        of_table = list(group)
        end = start + len(of_table)
        of_table[0].table.add_sums("flat", Sums([each.layer for each in of_table], rows[start:end]))
        start = end


def _add_responded(seen: Seen, responded: Tensor) -> None:
    known = seen.record.responded.get(seen.layer)
    if known is None or known.shape == responded.shape:
        seen.record.responded[seen.layer] = responded if known is None else known | responded
    else:  # of another number (of positions in sequences of another length) they are not the same units
        seen.record.responded[seen.layer] = responded.new_zeros(0)
