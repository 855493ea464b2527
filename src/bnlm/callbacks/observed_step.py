"""Observed steps as numbers on the host: moved in one transfer each, and computed once for all that ask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress, groupby

import numpy as np
import torch
from torch import Tensor

from bnlm.probe import Heard, LossRecord, StepRecord, Sums

#: By statistic, by layer or parameter: `statistics["saturation"]["layers.0"]`.
Statistics = dict[str, dict[str, float]]


@dataclass
class ObservedStep:
    """What was seen of one optimizer step.

    Attributes:
        step: Its number.
        statistics: See the monitors for their meaning. `grad_to_data` and `update_to_data` are not finite where they
            do not exist; parameters with a single element have neither these nor `gradient_std` nor `data_std`, which
            is that of the weights before the step. `gradient_alike` is the sum of a gradient all of whose elements are
            the same, and not zero: its std tells nothing.
        kinds: By layer, torch's name of the activation.
        shapes: By parameter.
        responded: By layer, `(units,)` booleans, see `stats.responding_units`.
        histograms: `activations` and `activation_gradients` by layer, `gradients` by parameter; see `stats.histogram`.
        maps: By layer, `(examples, units)` booleans: which outputs are flat.
        losses: The calls of loss functions: the first, and those of other terms, or of other networks.
        heard: Of the calls in the forward pass.
    """

    step: int
    statistics: Statistics = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    shapes: dict[str, torch.Size] = field(default_factory=dict)
    responded: dict[str, np.ndarray] = field(default_factory=dict)
    histograms: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    maps: dict[str, np.ndarray] = field(default_factory=dict)
    losses: list[LossRecord] = field(default_factory=list)
    heard: Heard = field(default_factory=Heard)


def observed_steps(records: Sequence[StepRecord], steps: Sequence[int]) -> list[ObservedStep]:
    """Return what each of `records` holds, the statistics computed in float64."""
    on_host = [_on_host(record) for record in records]
    statistics: list[Statistics] = []
    for _, alike in groupby(on_host, key=lambda record: {group: sums.names for group, sums in record.sums.items()}):
        statistics += _statistics(list(alike))
    return [_observed_step(*each) for each in zip(on_host, steps, statistics, strict=True)]


def _observed_step(record: StepRecord, step: int, statistics: Statistics) -> ObservedStep:
    return ObservedStep(
        step,
        statistics,
        record.kinds,
        record.shapes,
        {layer: units.numpy() for layer, units in record.responded.items()},
        {which: _arrays(record.histograms.get(which, {})) for which in HISTOGRAMS},
        _arrays(record.maps),
        record.losses,
        record.heard,
    )


HISTOGRAMS = ("activations", "activation_gradients", "gradients")


def _arrays(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: t.numpy() for name, t in tensors.items()}


def _on_host(record: StepRecord) -> StepRecord:
    """Return the record with all its tensors on the host, moved together if they are elsewhere."""
    held: list[Tensor] = [of_group.sums for of_group in record.sums.values()]
    held += [*record.responded.values(), *record.maps.values()]
    held += [t for of_which in record.histograms.values() for t in of_which.values()]
    held += [loss.values for loss in record.losses]
    if all(t.is_cpu for t in held):
        return record
    joined = torch.cat([t.reshape(-1).to(held[0].device, held[0].dtype) for t in held]).cpu()
    parts = iter(joined.split([t.numel() for t in held]))

    def moved(t: Tensor) -> Tensor:
        return next(parts).reshape(t.shape).to(t.dtype)

    return replace(
        record,
        sums={group: Sums(of_group.names, moved(of_group.sums)) for group, of_group in record.sums.items()},
        responded={layer: moved(t) for layer, t in record.responded.items()},
        maps={layer: moved(t) for layer, t in record.maps.items()},
        histograms={w: {n: moved(t) for n, t in of_which.items()} for w, of_which in record.histograms.items()},
        losses=[replace(loss, values=moved(loss.values)) for loss in record.losses],
    )


#: Statistics of layers that are means, and of what.
_MEANS = {"activation_mean": "output", "preactivation_mean": "input", "saturation": "flat"}
#: Statistics of layers that are standard deviations, and of what.
_STDS = {"activation_std": "output", "preactivation_std": "input", "activation_gradient_std": "output gradient"}


@np.errstate(all="ignore")
def _statistics(records: Sequence[StepRecord]) -> list[Statistics]:
    """Return the statistics of steps that have seen the same layers and parameters, all steps in the same calls."""
    names = {group: of_group.names for group, of_group in records[0].sums.items()}
    rows = {group: np.stack([record.sums[group].sums.numpy() for record in records]) for group in names}
    stds = {group: np.sqrt(r[..., 2] / np.maximum(r[..., 0] - 1, 0)) for group, r in rows.items()}  # as `stats.std_of`
    found: list[Statistics] = [{} for _ in records]

    def add(statistic: str, named: Sequence[str], values: np.ndarray) -> None:
        for of_step, of_names in zip(found, values.tolist(), strict=True):
            of_step[statistic] = dict(zip(named, of_names, strict=True))

    if "output" in rows:
        add("activation_elements", names["output"], rows["output"][..., 0])
    for statistic, group in _MEANS.items():
        if group in rows:
            add(statistic, names[group], rows[group][..., 1] / rows[group][..., 0])
    for statistic, group in _STDS.items():
        if group in rows:
            add(statistic, names[group], stds[group])
    if "gradient" in rows:
        count, total, squares = np.moveaxis(rows["gradient"], -1, 0)
        about_zero = squares + total**2 / np.maximum(count, 1)
        add("gradient_norm", ["total"], np.sqrt(about_zero.sum(axis=1, keepdims=True)))
        graded, gradient, data = _beside_data("gradient", names, rows, stds)
        add("gradient_std", graded, gradient)
        add("grad_to_data", graded, gradient / data)
        alike = (squares == 0) & (total != 0) & (count > 1)
        if alike.any():
            for of_step, sums, chosen in zip(found, total.tolist(), alike, strict=True):
                of_step["gradient_alike"] = dict(compress(zip(names["gradient"], sums, strict=True), chosen))
    if "update" in rows:
        moved, update, data = _beside_data("update", names, rows, stds)
        add("update_to_data", moved, np.log10(update / data))
        add("data_std", moved, data)
    return found


def _beside_data(
    group: str, names: Mapping[str, list[str]], rows: Mapping[str, np.ndarray], stds: Mapping[str, np.ndarray]
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return names, and `(steps, names)` standard deviations of a group and of the data.

    A parameter with a single element has none.
    """
    named, of_group, of_data = names[group], stds[group], stds["data"]
    if named != names["data"]:
        row = {name: index for index, name in enumerate(names["data"])}
        of_data = of_data[:, [row[name] for name in named]]
    several = rows[group][0, :, 0] >= 2
    if not several.all():
        named, of_group, of_data = list(compress(named, several)), of_group[:, several], of_data[:, several]
    return named, of_group, of_data
