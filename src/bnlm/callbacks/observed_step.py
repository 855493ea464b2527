"""An observed step as numbers on the host: moved in one transfer, and computed once for all that ask."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import compress

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
    held += [*record.flat.values(), *record.responded.values(), *record.maps.values()]
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
        flat={layer: moved(t) for layer, t in record.flat.items()},
        responded={layer: moved(t) for layer, t in record.responded.items()},
        maps={layer: moved(t) for layer, t in record.maps.items()},
        histograms={w: {n: moved(t) for n, t in of_which.items()} for w, of_which in record.histograms.items()},
        losses=[replace(loss, values=moved(loss.values)) for loss in record.losses[:1]],
    )


#: Statistics of layers that are standard deviations, and of what.
_STDS = {"activation_std": "output", "preactivation_std": "input", "activation_gradient_std": "output gradient"}


@np.errstate(all="ignore")
def _statistics(record: StepRecord) -> Statistics:
    sums = {group: (of_group.names, of_group.sums.numpy()) for group, of_group in record.sums.items()}
    found: Statistics = {}
    if "output" in sums:
        layers, output = sums["output"]
        found["activation_mean"] = _named(layers, output[:, 1] / output[:, 0])
    for statistic, group in _STDS.items():
        if group in sums:
            found[statistic] = _named(sums[group][0], _std(sums[group][1]))
    if "gradient" in sums:
        rows = sums["gradient"][1]
        squares = rows[:, 2] + rows[:, 1] ** 2 / np.maximum(rows[:, 0], 1)  # about zero again
        found["gradient_norm"] = {"total": float(np.sqrt(squares.sum()))}
        names, gradient, data = _beside_data(sums, "gradient")
        found["gradient_std"] = _named(names, gradient)
        found["grad_to_data"] = _named(names, gradient / data)
    if "update" in sums:
        names, update, data = _beside_data(sums, "update")
        found["update_to_data"] = _named(names, np.log10(update / data))
    if record.flat:
        on_flat, looked_at = torch.stack(list(record.flat.values())).numpy().T
        found["saturation"] = _named(record.flat, on_flat / looked_at)
    return found


def _beside_data(
    sums: Mapping[str, tuple[list[str], np.ndarray]], group: str
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return standard deviations of a group and of the data; a parameter with a single element has none."""
    (names, rows), (data_names, data) = sums[group], sums["data"]
    if names != data_names:
        row = {name: index for index, name in enumerate(data_names)}
        data = data[[row[name] for name in names]]
    several = rows[:, 0] >= 2
    if not several.all():
        names, rows, data = list(compress(names, several)), rows[several], data[several]
    return names, _std(rows), _std(data)


def _std(rows: np.ndarray) -> np.ndarray:
    return np.sqrt(rows[:, 2] / np.maximum(rows[:, 0] - 1, 0))  # as `stats.std_of`


def _named(names: Iterable[str], values: np.ndarray) -> dict[str, float]:
    return dict(zip(names, values.tolist(), strict=True))
