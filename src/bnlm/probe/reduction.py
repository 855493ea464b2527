"""What is counted on the outputs of activations, beside their moments: together where layers are alike."""

from collections.abc import Sequence
from dataclasses import dataclass
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
    """Copies of one call's input and output (slices of large ones), not yet reduced."""

    layer: str
    kind: str
    input: Tensor
    output: Tensor
    channel_dim: int
    limits: tuple[float, float] | None


@torch.no_grad()
def count(record: StepRecord, table: MomentTable, seen: Sequence[Seen], maps: bool) -> None:
    """Pool which units responded into the record, and how many outputs are flat into the group `flat` of the table."""
    alike: dict[Any, list[Seen]] = {}
    for each in seen:
        output = each.output
        if each.kind in BOUNDED:
            key = (each.kind, output.shape, each.channel_dim, each.limits, output.dtype, output.device)
            alike.setdefault(key, []).append(each)
        elif can_die(each.kind) and output.ndim >= 2:  # `(N,)` and `()` have no dimension of units
            _add_responded(record, each, responding_units(each.kind, output, each.channel_dim, each.limits))
    for (kind, shape, channel_dim, limits, *_), of_kind in alike.items():
        on_flat = flat(kind, torch.stack([each.output for each in of_kind]), limits)
        table.add_sums("flat", Sums([each.layer for each in of_kind], _moments_of_booleans(on_flat)))
        if len(shape) < 2:
            continue
        channels = channel_dim % len(shape) + 1
        silent = all_over(on_flat, [d for d in range(1, on_flat.ndim) if d != channels])
        for each, responded in zip(of_kind, (~silent).unbind(), strict=True):
            _add_responded(record, each, responded)
        if maps:
            units = on_flat.movedim(channels, -1).reshape(len(of_kind), -1, shape[channel_dim])
            for each, of_layer in zip(of_kind, units.unbind(), strict=True):
                record.maps.setdefault(each.layer, of_layer[:MAP_EXAMPLES, :MAP_UNITS])


def _moments_of_booleans(x: Tensor) -> Tensor:
    """Return the moment sums `(n, 3)` of n tensors of booleans, `(n, ...)`."""
    each = x.reshape(len(x), -1)
    true = each.sum(dim=1).to(accumulation_dtype(x.device))
    size = torch.full_like(true, each.shape[1])
    return torch.stack([size, true, true - true * true / size], dim=1)


def _add_responded(record: StepRecord, seen: Seen, responded: Tensor) -> None:
    known = record.responded.get(seen.layer)
    if known is None or known.shape == responded.shape:
        record.responded[seen.layer] = responded if known is None else known | responded
    else:  # of another number (of positions in sequences of another length) they are not the same units
        record.responded[seen.layer] = responded.new_zeros(0)
