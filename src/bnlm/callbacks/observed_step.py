"""An observed step as numbers on the host: moved in one transfer, and computed once for all that ask."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import accumulate, compress

import numpy as np
import torch
from torch import Tensor

from bnlm.probe import StepRecord, Sums

#: By statistic, by layer or parameter: `statistics["saturation"]["layers.0"]`.
Statistics = dict[str, dict[str, float]]


@dataclass
class ObservedStep:
    """What was seen of one optimizer step.

    Attributes:
        step: Its number.
        statistics: See the monitors for their meaning. `grad_to_data` and `update_to_data` are not finite where they
            do not exist; parameters with a single element have neither these nor `gradient_std`.
        kinds: By layer, torch's name of the activation.
        shapes: By parameter.
        responded: By layer, `(units,)` booleans, see `stats.responding_units`.
        histograms: `activations` and `activation_gradients` by layer, `gradients` by parameter; see `stats.histogram`.
        maps: By layer, `(examples, units)` booleans: which outputs are flat.
        loss: Kind and values of the first call of a loss function, see `LossRecord`; further calls are of other terms,
            or of other networks.
        values_per_channel: See `StepRecord`.
    """

    step: int
    statistics: Statistics = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    shapes: dict[str, torch.Size] = field(default_factory=dict)
    responded: dict[str, np.ndarray] = field(default_factory=dict)
    histograms: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    maps: dict[str, np.ndarray] = field(default_factory=dict)
    loss: tuple[str, list[float]] | None = None
    values_per_channel: dict[str, int] = field(default_factory=dict)


def observed_step(record: StepRecord, step: int) -> ObservedStep:
    """Return what `record` holds, its statistics computed in float64."""
    record = _on_host(record)
    seen = ObservedStep(
        step,
        _statistics(record),
        record.kinds,
        record.shapes,
        {layer: units.numpy() for layer, units in record.responded.items()},
        {which: _arrays(record.histograms.get(which, {})) for which in HISTOGRAMS},
        _arrays(record.maps),
        values_per_channel=record.values_per_channel,
    )
    if record.losses:
        seen.loss = record.losses[0].kind, record.losses[0].values.tolist()
    return seen


HISTOGRAMS = ("activations", "activation_gradients", "gradients")


def _arrays(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: t.numpy() for name, t in tensors.items()}


def _on_host(record: StepRecord) -> StepRecord:
    """Return the record with all its tensors on the host, moved together if they are elsewhere."""
    held: list[Tensor] = [of_group.sums for of_group in record.sums.values()]
    held += [*record.responded.values(), *record.maps.values()]
    held += [t for of_which in record.histograms.values() for t in of_which.values()]
    held += [loss.values for loss in record.losses[:1]]
    if all(t.device.type == "cpu" for t in held):
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
        losses=[replace(loss, values=moved(loss.values)) for loss in record.losses[:1]],
    )


#: Statistics of layers that are means, and of what.
_MEANS = {"activation_mean": "output", "saturation": "flat"}
#: Statistics of layers that are standard deviations, and of what.
_STDS = {"activation_std": "output", "preactivation_std": "input", "activation_gradient_std": "output gradient"}


@np.errstate(all="ignore")
def _statistics(record: StepRecord) -> Statistics:
    names = {group: of_group.names for group, of_group in record.sums.items()}
    rows = {group: of_group.sums.numpy() for group, of_group in record.sums.items()}
    stds = _stds(rows)
    found: Statistics = {}
    for statistic, group in _MEANS.items():
        if group in rows:
            found[statistic] = _named(names[group], rows[group][:, 1] / rows[group][:, 0])
    for statistic, group in _STDS.items():
        if group in rows:
            found[statistic] = _named(names[group], stds[group])
    if "gradient" in rows:
        of_gradient = rows["gradient"]
        squares = of_gradient[:, 2] + of_gradient[:, 1] ** 2 / np.maximum(of_gradient[:, 0], 1)  # about zero again
        found["gradient_norm"] = {"total": float(np.sqrt(squares.sum()))}
        graded, gradient, data = _beside_data("gradient", names, rows, stds)
        found["gradient_std"] = _named(graded, gradient)
        found["grad_to_data"] = _named(graded, gradient / data)
    if "update" in rows:
        moved, update, data = _beside_data("update", names, rows, stds)
        found["update_to_data"] = _named(moved, np.log10(update / data))
    return found


def _stds(rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the standard deviations of each group's moment sums, as `stats.std_of` does; all in one call."""
    if not rows:
        return {}
    joined = np.concatenate(list(rows.values()))
    stds = np.sqrt(joined[:, 2] / np.maximum(joined[:, 0] - 1, 0))
    ends = accumulate(len(of_group) for of_group in rows.values())
    return {group: stds[end - len(of_group) : end] for (group, of_group), end in zip(rows.items(), ends, strict=True)}


def _beside_data(
    group: str, names: Mapping[str, list[str]], rows: Mapping[str, np.ndarray], stds: Mapping[str, np.ndarray]
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return names, and standard deviations of a group and of the data; a parameter with a single element has none."""
    of_group, of_data = stds[group], stds["data"]
    named = names[group]
    if named != names["data"]:
        row = {name: index for index, name in enumerate(names["data"])}
        of_data = of_data[[row[name] for name in named]]
    several = rows[group][:, 0] >= 2
    if not several.all():
        named, of_group, of_data = list(compress(named, several)), of_group[several], of_data[several]
    return named, of_group, of_data


def _named(names: Iterable[str], values: np.ndarray) -> dict[str, float]:
    return dict(zip(names, values.tolist(), strict=True))
