"""Makes records of copies of activations; on a small network the number of calls is what counts, so several at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bnlm.probe.records import ActivationRecord
from bnlm.stats import BOUNDED, can_die, flat, histogram, moment_sums_of, pooled, responding_units

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
def add_to_records(
    records: dict[str, ActivationRecord],
    seen: Sequence[Seen],
    gradients: Sequence[tuple[str, Tensor]],
    histograms: bool,
    maps: bool,
) -> None:
    """Pool calls, and loss gradients at the outputs of layers, into the records of their layers."""
    outputs, inputs = [each.output for each in seen], [each.input for each in seen]
    sums = moment_sums_of([*outputs, *inputs, *(gradient for _, gradient in gradients)])
    rows = sums.unbind()
    found = [
        ActivationRecord(each.kind, output, pre_activation)
        for each, output, pre_activation in zip(seen, rows, rows[len(seen) :], strict=False)
    ]
    _add_flat_and_units(found, seen, sums, maps)
    for each, record in zip(seen, found, strict=True):
        if each.layer in records:
            records[each.layer].add(record)
        else:
            if histograms:
                record.histogram = histogram(each.output)
            records[each.layer] = record
    for (layer, gradient), of_gradient in zip(gradients, rows[2 * len(seen) :], strict=True):
        record = records[layer]
        if record.gradient is None:
            record.gradient = of_gradient
            if histograms:
                record.gradient_histogram = histogram(gradient)
        else:
            record.gradient = pooled(record.gradient, of_gradient)


def _add_flat_and_units(found: Sequence[ActivationRecord], seen: Sequence[Seen], sums: Tensor, maps: bool) -> None:
    """Set `flat`, `responded` and `flat_map` of the records, together where layers are alike."""
    alike: dict[Any, list[int]] = {}
    for index, each in enumerate(seen):
        output = each.output
        if each.kind in BOUNDED:
            key = (each.kind, output.shape, each.channel_dim, each.limits, output.dtype, output.device)
            alike.setdefault(key, []).append(index)
        elif can_die(each.kind) and output.ndim >= 2:  # `(N,)` and `()` have no dimension of units
            found[index].responded = responding_units(each.kind, output, each.channel_dim, each.limits)
    for (kind, shape, channel_dim, limits, *_), indices in alike.items():
        on_flat = flat(kind, torch.stack([seen[index].output for index in indices]), limits)
        count = on_flat.reshape(len(indices), -1).sum(dim=1).to(sums.device, sums.dtype)
        for index, counts in zip(indices, torch.stack([count, sums[indices, 0]], dim=1).unbind(), strict=True):
            found[index].flat = counts
        if len(shape) < 2:
            continue
        units = on_flat.movedim(channel_dim % len(shape) + 1, -1).reshape(len(indices), -1, shape[channel_dim])
        for index, of_layer, responded in zip(indices, units, ~units.all(dim=1), strict=True):
            found[index].responded = responded
            if maps:
                found[index].flat_map = of_layer[:MAP_EXAMPLES, :MAP_UNITS]
