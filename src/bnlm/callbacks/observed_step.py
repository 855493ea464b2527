"""An observed step as numbers on the host: moved in one transfer, and computed once for all that ask."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

import numpy as np
import torch
from torch import Tensor

from bnlm.probe import StepRecord

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
    layers, parameters = record.activations, record.parameters
    groups: dict[str, dict[str, Tensor | None]] = {
        "output": {name: a.output for name, a in layers.items()},
        "input": {name: a.input for name, a in layers.items()},
        "output gradient": {name: a.gradient for name, a in layers.items()},
        "flat": {name: a.flat for name, a in layers.items()},
        "data": {name: p.data for name, p in parameters.items()},
        "gradient": {name: p.gradient for name, p in parameters.items()},
        "update": {name: p.update for name, p in parameters.items()},
        "loss": {each.kind: each.values for each in record.losses[:1]},
        "responded": {name: a.responded for name, a in layers.items()},
        "activations": {name: a.histogram for name, a in layers.items()},
        "activation_gradients": {name: a.gradient_histogram for name, a in layers.items()},
        "gradients": {name: p.gradient_histogram for name, p in parameters.items()},
        "maps": {name: a.flat_map for name, a in layers.items()},
    }
    names = {group: [name for name, t in given.items() if t is not None] for group, given in groups.items()}
    tensors = {group: [t for t in given.values() if t is not None] for group, given in groups.items()}
    host = dict(zip(tensors, _on_host(list(tensors.values())), strict=True))

    def by_name(group: str) -> dict[str, np.ndarray]:
        ends = accumulate((t.numel() for t in tensors[group]), initial=0)
        return {
            name: host[group][start:end].reshape(t.shape)
            for name, t, (start, end) in zip(names[group], tensors[group], pairwise(ends), strict=True)
        }

    seen = ObservedStep(
        step,
        kinds={name: a.kind for name, a in layers.items()},
        shapes={name: p.shape for name, p in parameters.items()},
        responded={name: part > 0.5 for name, part in by_name("responded").items()},
        histograms={group: by_name(group) for group in ("activations", "activation_gradients", "gradients")},
        maps={name: part > 0.5 for name, part in by_name("maps").items()},
        values_per_channel=record.values_per_channel,
    )
    if record.losses:
        seen.loss = record.losses[0].kind, host["loss"].tolist()
    sums = {group: (names[group], host[group].reshape(-1, 3)) for group in _SUMS}
    with np.errstate(all="ignore"):
        _add_activations(seen.statistics, sums)
        _add_parameters(seen.statistics, sums)
    if names["flat"]:
        on_flat, looked_at = host["flat"].reshape(-1, 2).T
        seen.statistics["saturation"] = _named(names["flat"], on_flat / looked_at)
    return seen


_SUMS = ("output", "input", "output gradient", "data", "gradient", "update")
_Sums = Mapping[str, tuple[list[str], np.ndarray]]


def _on_host(groups: Sequence[Sequence[Tensor]]) -> list[np.ndarray]:
    """Return each group's elements `(n,)`."""
    tensors = [t if t.ndim == 1 else t.reshape(-1) for group in groups for t in group]
    if not tensors:
        return [np.empty(0) for _ in groups]
    joined = torch.cat(tensors).cpu().numpy()
    ends = list(accumulate((sum(t.numel() for t in group) for group in groups), initial=0))
    return [joined[start:end] for start, end in pairwise(ends)]


def _add_activations(statistics: Statistics, sums: _Sums) -> None:
    layers, output = sums["output"]
    if not layers:
        return
    statistics["activation_mean"] = _named(layers, output[:, 1] / output[:, 0])
    statistics["activation_std"] = _named(layers, _std(output))
    statistics["preactivation_std"] = _named(layers, _std(sums["input"][1]))
    graded, gradient = sums["output gradient"]
    if graded:
        statistics["activation_gradient_std"] = _named(graded, _std(gradient))


def _add_parameters(statistics: Statistics, sums: _Sums) -> None:
    names, data = sums["data"]
    row = {name: index for index, name in enumerate(names)}
    graded, gradient = sums["gradient"]
    if graded:
        # About zero again, from the squares about the mean.
        squares = gradient[:, 2] + gradient[:, 1] ** 2 / np.maximum(gradient[:, 0], 1)
        statistics["gradient_norm"] = {"total": float(np.sqrt(squares.sum()))}
        names, stds, of_data = _with_spread(graded, gradient, data[[row[name] for name in graded]])
        statistics["gradient_std"] = _named(names, stds)
        statistics["grad_to_data"] = _named(names, stds / of_data)
    moved, update = sums["update"]
    if moved:
        names, stds, of_data = _with_spread(moved, update, data[[row[name] for name in moved]])
        statistics["update_to_data"] = _named(names, np.log10(stds / of_data))


def _with_spread(names: list[str], sums: np.ndarray, data: np.ndarray) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return the names of those with two elements at least, and the standard deviations of both."""
    several = sums[:, 0] >= 2
    if not several.all():
        names = [name for name, kept in zip(names, several, strict=True) if kept]
        sums, data = sums[several], data[several]
    return names, _std(sums), _std(data)


def _std(sums: np.ndarray) -> np.ndarray:
    return np.sqrt(sums[:, 2] / np.maximum(sums[:, 0] - 1, 0))  # as `stats.std_of`


def _named(names: Iterable[str], values: np.ndarray) -> dict[str, float]:
    return dict(zip(names, values.tolist(), strict=True))
