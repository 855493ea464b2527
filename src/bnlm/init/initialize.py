"""Applies an initialisation scheme to a built model."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn.parameter import is_lazy

from bnlm.init.fans import fans
from bnlm.init.gain import gain_of
from bnlm.init.layers import FoundLayer, find_layers, is_normalization
from bnlm.init.torch_default import torch_default_std

Scheme = Callable[..., float]
"""``scheme(weight, *, gain, generator) -> std``: draws a weight in place, returns the standard deviation it aimed at.

A scheme without a parameter ``gain`` does not depend on the activation."""


@dataclass(frozen=True)
class LayerReport:
    """What was done to one weight; ``gain`` is None where the scheme has none, an embedding's fan_in is 1 (one row)."""

    layer: str
    shape: tuple[int, ...]
    fan_in: int
    gain: float | None
    std_wanted: float
    std_drawn: float


@torch.no_grad()
def initialize(
    model: nn.Module,
    scheme: Scheme | None = None,
    *,
    gain: float | Literal["auto"] = "auto",
    output_scale: float = 1.0,
    bias: float | None = 0.0,
    output_bias: float | None = 0.0,
    generator: Generator | None = None,
) -> list[LayerReport]:
    """Draw the weights and biases of every Linear, convolution and embedding of ``model``, in place.

    The output layer is the last Linear or convolution (of a model without any: the last embedding), in the order of
    registration. Normalizations are reset first (weight 1, bias 0, no batch seen), so that initialising twice with the
    same seed gives the same model. Embeddings are drawn from N(0, 1), their padding row set to 0. A weight that several
    layers share is drawn once, where it is first registered.

    Args:
        scheme: Draws one weight. None leaves everything as it was built and only applies ``output_scale`` and the
            biases that are not None.
        gain: Given to the scheme; ``auto`` takes `gain_of` the activation that follows a layer. The output layer, which
            no activation follows, has gain 1 in any case.
        output_scale: Factor on the output: on the weight of the normalization that follows the output layer, else on
            the layer's own weight. A small one starts training near the uniform prediction.
        bias: Standard deviation of the hidden layers' biases; 0 for zeros, None to leave them.
        output_bias: The same for the output layer.
        generator: Source of every draw; None for torch's global one.
    Returns:
        One report per weight, in the order of registration.
    Raises:
        ValueError: If a value is out of its range, a layer is still lazy, or the output layer's normalization has no
            weight to scale.
    """
    _check_gain(gain)
    _check_size("init.output_scale", output_scale, "a number of at least 0")
    for key, value in (("init.bias", bias), ("init.output_bias", output_bias)):
        if value is not None:
            _check_size(key, value, "a standard deviation of at least 0, or null to leave the biases as built")
    layers = find_layers(model)
    output = _output_layer(layers)
    to_scale = _weight_to_scale(output, output_scale)
    if scheme is not None:
        _reset_normalizations(model)

    done: set[int] = set()  # shared weights and biases must not be drawn twice
    rows: list[tuple[FoundLayer, float | None, float]] = []
    for layer in layers:
        weight = layer.module.weight
        if is_lazy(weight):
            raise ValueError(f"init: {layer.name} is lazy and has no weight yet; run the model once before.")
        if id(weight) not in done:
            done.add(id(weight))
            layer_gain = 1.0 if layer is output and layer.activation is None else gain
            rows.append((layer, *_draw_weight(layer, scheme, layer_gain, generator)))
        layer_bias = getattr(layer.module, "bias", None)
        if layer_bias is not None and id(layer_bias) not in done:
            done.add(id(layer_bias))
            _draw_bias(layer_bias, output_bias if layer is output else bias, generator)

    if to_scale is not None:
        to_scale.mul_(output_scale)
    return [
        _report(layer, used_gain, std * output_scale if layer.module.weight is to_scale else std)
        for layer, used_gain, std in rows
    ]


def _draw_weight(
    layer: FoundLayer, scheme: Scheme | None, gain: float | Literal["auto"], generator: Generator | None
) -> tuple[float | None, float]:
    """Draw one weight; return the gain that was used, if any, and the standard deviation that was wanted."""
    weight = layer.module.weight
    if isinstance(layer.module, nn.Embedding):
        if scheme is not None:
            weight.normal_(0.0, 1.0, generator=generator)
            if layer.module.padding_idx is not None:
                weight[layer.module.padding_idx].zero_()
        return None, 1.0
    if scheme is None:
        return None, torch_default_std(weight)
    if "gain" not in inspect.signature(scheme).parameters:
        return None, scheme(weight, generator=generator)
    used = gain_of(layer.activation) if gain == "auto" else float(gain)
    return used, scheme(weight, gain=used, generator=generator)


def _draw_bias(bias: Tensor, std: float | None, generator: Generator | None) -> None:
    if std == 0:
        bias.zero_()
    elif std is not None:
        bias.normal_(0.0, std, generator=generator)


def _output_layer(layers: list[FoundLayer]) -> FoundLayer | None:
    weighted = [layer for layer in layers if not isinstance(layer.module, nn.Embedding)]
    candidates = weighted or layers
    return candidates[-1] if candidates else None


def _weight_to_scale(output: FoundLayer | None, output_scale: float) -> Tensor | None:
    """Return the weight that sets the scale of the output, or None if there is nothing to do."""
    if output is None or output_scale == 1:
        return None
    if output.normalization is None:
        return output.module.weight
    weight = getattr(output.normalization, "weight", None)
    if not isinstance(weight, Tensor):
        raise ValueError(
            f"init.output_scale={output_scale!r}: the normalization after {output.name} has no weight to scale; "
            "set init.output_scale=1, or give the normalization a weight (affine=True)."
        )
    return weight


def _reset_normalizations(model: nn.Module) -> None:
    for module in model.modules():
        if is_normalization(module):
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()


def _report(layer: FoundLayer, gain: float | None, std_wanted: float) -> LayerReport:
    weight = layer.module.weight
    fan_in = 1 if isinstance(layer.module, nn.Embedding) else fans(weight)[0]
    return LayerReport(
        layer=layer.name,
        shape=tuple(weight.shape),
        fan_in=fan_in,
        gain=gain,
        std_wanted=std_wanted,
        std_drawn=weight.std(correction=0).item(),
    )


def _check_gain(gain: Any) -> None:
    if gain != "auto" and not (_is_number(gain) and gain > 0):
        raise ValueError(f"init.gain={gain!r}: expected auto or a number above 0.")


def _check_size(key: str, value: Any, accepted: str) -> None:
    if not (_is_number(value) and value >= 0):
        raise ValueError(f"{key}={value!r}: expected {accepted}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
