"""Decides what is drawn for each weight and bias of a model, before anything is drawn."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from bnlm.init.gain import gain_of
from bnlm.init.layers import FoundLayer
from bnlm.init.normal import normal
from bnlm.init.schemes import Scheme, has_gain
from bnlm.init.settings import LayerSettings, Overrides, residual_factors
from bnlm.init.weights import Weight, biases_of, weights_of


@dataclass(frozen=True)
class PlannedWeight:
    """A weight, the scheme that draws it (None: left as built) with its gain (None: it has none), and a factor."""

    layer: FoundLayer
    weight: Weight
    label: str
    scheme: Scheme | None
    gain: float | None
    factor: float


@dataclass(frozen=True)
class PlannedBias:
    """A bias and its standard deviation; 0 for zeros, None to leave it."""

    bias: Tensor
    std: float | None


def plan(
    layers: list[FoundLayer],
    output: FoundLayer | None,
    scheme: Scheme | None,
    gain: float | Literal["auto"],
    bias: float | None,
    output_bias: float | None,
    overrides: Overrides | None,
    residual: str | None,
) -> list[PlannedWeight | PlannedBias]:
    """Return every weight and bias once, in the order of registration, with what is to be done to it.

    A parameter that several layers share goes by all their names, and is drawn as the first of them wants it.

    Raises:
        ValueError: For an override or a residual pattern that is not valid or reaches nothing, and for layers whose
            weight does not exist yet, or is computed from others.
    """
    names: dict[int, list[str]] = defaultdict(list)
    for layer in layers:
        for name, parameter in _parameters(layer):
            names[id(parameter)] += [layer.name, f"{layer.name}.{name}".lstrip(".")]
    layer_names = list(dict.fromkeys(layer.name for layer in layers))
    parameter_names = [name for found in names.values() for name in found[1::2]]
    settings = LayerSettings(overrides)
    factors = residual_factors(residual, layer_names, parameter_names)

    planned: dict[int, PlannedWeight | PlannedBias] = {}
    for layer in layers:
        weights = weights_of(layer.module)
        for weight in weights:
            if id(weight.parameter) not in planned:
                aliases = names[id(weight.parameter)]
                own = settings.of(aliases, ("scheme", "gain", "scale"))
                chosen = own.get("scheme", normal if layer.is_embedding and scheme is not None else scheme)
                factor = own.get("scale", 1.0) * next((factors[name] for name in aliases if name in factors), 1.0)
                label = layer.name if len(weights) == 1 else f"{layer.name}.{weight.name}".lstrip(".")
                used = _gain(layer, own.get("gain", 1.0 if _is_logits(layer, output) else gain))
                planned[id(weight.parameter)] = PlannedWeight(
                    layer, weight, label, chosen, used if chosen is not None and has_gain(chosen) else None, factor
                )
        for _, parameter in biases_of(layer.module):
            if id(parameter) not in planned:
                own = settings.of(names[id(parameter)], ("bias",))
                std = own.get("bias", output_bias if layer is output else bias)
                planned[id(parameter)] = PlannedBias(parameter, std)
    settings.check_all_used([*layer_names, *parameter_names])
    return list(planned.values())


def _parameters(layer: FoundLayer) -> list[tuple[str, Any]]:
    """Return the parameters that are to be drawn, or raise where these are not parameters one could draw."""
    module = layer.module
    if any(is_lazy(parameter) for parameter in module.parameters(recurse=False)):
        raise ValueError(f"init: {layer.name} is lazy and has no weight yet; run the model once before.")
    found = [(weight.name, weight.parameter) for weight in weights_of(module)] + biases_of(module)
    for name, parameter in found:
        if not isinstance(parameter, nn.Parameter):
            raise ValueError(
                f"init: {layer.name}.{name} is computed from other parameters (a parametrization, such as weight_norm);"
                " initialise the model before it is put on."
            )
    return found


def _is_logits(layer: FoundLayer, output: FoundLayer | None) -> bool:
    return layer is output and layer.activation is None


def _gain(layer: FoundLayer, gain: float | Literal["auto"]) -> float:
    if gain != "auto":
        return float(gain)
    # Two matrices feed a gate, which is sqrt(2) together already; attention's projections meet no activation.
    return gain_of(layer.activation) if layer.is_linear else 1.0
