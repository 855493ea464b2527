"""An observed step as numbers on the host: moved in one transfer, and computed once for all that ask."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress

import numpy as np
import torch
from torch import Tensor

from bnlm.probe import StepRecord
from bnlm.stats import mean_of, square_sum_of, std_of

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
        "data": {name: p.data for name, p in parameters.items()},
        "gradient": {name: p.gradient for name, p in parameters.items()},
        "update": {name: p.update for name, p in parameters.items()},
        "flat": {name: a.flat for name, a in layers.items()},
        "loss": {each.kind: each.values for each in record.losses[:1]},
        "responded": {name: a.responded for name, a in layers.items()},
        "activations": {name: a.histogram for name, a in layers.items()},
        "activation_gradients": {name: a.gradient_histogram for name, a in layers.items()},
        "gradients": {name: p.gradient_histogram for name, p in parameters.items()},
        "maps": {name: a.flat_map for name, a in layers.items()},
    }
    there = {group: {n: t for n, t in given.items() if t is not None} for group, given in groups.items()}
    host = dict(zip(there, _on_host([list(given.values()) for given in there.values()]), strict=True))

    def by_name(group: str) -> dict[str, np.ndarray]:
        parts = host[group].split([t.numel() for t in there[group].values()])
        return {n: part.reshape(t.shape).numpy() for (n, t), part in zip(there[group].items(), parts, strict=True)}

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
    sums = {group: _Sums(list(there[group]), host[group].view(-1, 3)) for group in _SUMS}
    seen.statistics = {**_of_activations(sums), **_of_parameters(sums)}
    if there["flat"]:
        on_flat, looked_at = host["flat"].view(-1, 2).unbind(1)
        seen.statistics["saturation"] = _named(there["flat"], on_flat / looked_at)
    return seen


_SUMS = ("output", "input", "output gradient", "data", "gradient", "update")


@dataclass
class _Sums:
    """Moment sums `(len(names), 3)`."""

    names: list[str]
    sums: Tensor


def _on_host(groups: Sequence[Sequence[Tensor]]) -> Sequence[Tensor]:
    """Return each group's elements `(n,)`, moved together."""
    tensors = [t if t.ndim == 1 else t.reshape(-1) for group in groups for t in group]
    if not tensors:
        return [torch.empty(0) for _ in groups]
    return torch.cat(tensors).cpu().split([sum(t.numel() for t in group) for group in groups])


def _of_activations(sums: Mapping[str, _Sums]) -> Statistics:
    output, gradient = sums["output"], sums["output gradient"]
    if not output.names:
        return {}
    found = {
        "activation_mean": _named(output.names, mean_of(output.sums)),
        "activation_std": _named(output.names, std_of(output.sums)),
        "preactivation_std": _named(output.names, std_of(sums["input"].sums)),
    }
    if gradient.names:
        found["activation_gradient_std"] = _named(gradient.names, std_of(gradient.sums))
    return found


def _of_parameters(sums: Mapping[str, _Sums]) -> Statistics:
    row = {name: index for index, name in enumerate(sums["data"].names)}
    data = sums["data"].sums
    found: Statistics = {}
    if sums["gradient"].names:
        found["gradient_norm"] = {"total": float(square_sum_of(sums["gradient"].sums).sum().sqrt())}
        several = _of_several_elements(sums["gradient"])
        gradient = std_of(several.sums)
        found["gradient_std"] = _named(several.names, gradient)
        found["grad_to_data"] = _named(several.names, gradient / std_of(data[[row[n] for n in several.names]]))
    if sums["update"].names:
        several = _of_several_elements(sums["update"])
        ratios = std_of(several.sums) / std_of(data[[row[n] for n in several.names]])
        found["update_to_data"] = _named(several.names, ratios.log10())
    return found


def _of_several_elements(given: _Sums) -> _Sums:
    """Leave out parameters with a single element, which have no standard deviation."""
    several = given.sums[:, 0] >= 2
    return _Sums(list(compress(given.names, several.tolist())), given.sums[several])


def _named(names: Iterable[str], values: Tensor) -> dict[str, float]:
    return dict(zip(names, values.tolist(), strict=True))
