"""Applies an initialisation scheme to a built model."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Literal

import torch
from torch import Generator, Tensor, nn

from bnlm.init.layers import FoundLayer, find_layers, is_normalization
from bnlm.init.plan import PlannedBias, PlannedWeight, plan
from bnlm.init.report import LayerReport
from bnlm.init.schemes import Scheme, draw
from bnlm.init.settings import BIAS, Overrides, check_gain, check_size
from bnlm.init.watch import find_followers

Rescale = Callable[..., Collection[str]]
"""``rescale(model, example, targets=...)``: scales drawn weights by what the data makes of them, as `unit_variance`."""


@torch.no_grad()
def initialize(
    model: nn.Module,
    scheme: Scheme | None = None,
    *,
    gain: float | Literal["auto"] = "auto",
    output_scale: float = 1.0,
    bias: float | None = 0.0,
    output_bias: float | None = 0.0,
    overrides: Overrides | None = None,
    residual: str | None = None,
    rescale: Rescale | None = None,
    example: Any = None,
    generator: Generator | None = None,
) -> list[LayerReport]:
    """Draw the weights and biases of every torch.nn layer of ``model``, in place.

    That is Linear, Bilinear, convolutions (transposed ones too), embeddings, recurrent layers and cells (each gate on
    its own) and MultiheadAttention (query, key and value each on its own); other parameters are left. What counts as
    fan_in and fan_out of each is in `bnlm.init.weights_of`.

    What follows a layer, and which layer is the output, is found by watching one forward on ``example``, through
    functional activations, reshaping and residual additions; without an example it is told by the order of
    registration. The output layer is the last Linear, Bilinear or convolution (of a model without any: the last
    embedding).

    Normalizations are reset first (weight 1, bias 0, no batch seen), so that initialising twice with the same seed
    gives the same model. Embeddings are drawn from N(0, 1), their padding row set to 0. A weight that several layers
    share is drawn once, where it is first registered. The draws are made in the order of registration in any case.

    Args:
        scheme: Draws one weight. None leaves everything as it was built and only applies the factors and the biases
            that are not None.
        gain: Given to the scheme; ``auto`` takes `gain_of` the activation that follows a layer, and 1 for recurrent
            layers and attention. The output layer, which no activation follows, has gain 1 in any case.
        output_scale: Factor on the output: on the weight of the normalization that follows the output layer, else on
            the layer's own weight. A small one starts training near the uniform prediction.
        bias: Standard deviation of the hidden layers' biases; 0 for zeros, None to leave them.
        output_bias: The same for the output layer.
        overrides: Regular expression -> settings, for the layers or parameters whose name it matches in full:
            ``scheme`` (a name such as orthogonal, or a callable), ``gain``, ``scale`` (a factor on the weight) and
            ``bias`` (a standard deviation). Where several match, the later wins.
        residual: Regular expression of the last layer of every residual branch: their weights are multiplied by
            1 / sqrt(number of branches), see `bnlm.init.settings.residual_factors`. ``auto`` takes the one that the
            model has as its attribute ``residual``, if it has one; None scales nothing.
        rescale: Scales the weights that were drawn until the layers' outputs on ``example`` have the standard deviation
            1, times the factors above.
        example: A batch of inputs: the model's argument, a tuple of its arguments, or a mapping of its keywords.
        generator: Source of every draw; None for torch's global one.
    Returns:
        One report per weight, in the order of registration.
    Raises:
        ValueError: If a value is out of its range, a pattern matches nothing, a layer has no weight to draw yet, or the
            output layer's normalization has no weight to scale.
    """
    check_gain("init.gain", gain)
    check_size("init.output_scale", output_scale, "a number of at least 0")
    for key, value in (("init.bias", bias), ("init.output_bias", output_bias)):
        if value is not None:
            check_size(key, value, BIAS)
    if rescale is not None and example is None:
        raise ValueError("init.rescale=...: needs data; give initialize() an example, a batch of inputs.")
    if residual == "auto":
        named = getattr(model, "residual", None)
        residual = named if isinstance(named, str) else None  # of another's model it may be a module
    layers = find_layers(model)
    plan(layers, None, scheme, gain, bias, output_bias, overrides, residual)  # mistakes show before the model is run
    worked = layers if example is None else find_followers(model, layers, example)
    output = _output_layer(worked or layers)
    to_scale = _weight_to_scale(output, output_scale)
    planned = plan(layers, output, scheme, gain, bias, output_bias, overrides, residual)
    if scheme is not None:
        _reset_normalizations(model)

    stds: list[tuple[PlannedWeight, float]] = []
    for item in planned:
        if isinstance(item, PlannedBias):
            _draw_bias(item, generator)
        else:
            stds.append((item, _draw_weight(item, generator)))
    factors = {item: item.factor * (output_scale if item.weight.parameter is to_scale else 1) for item, _ in stds}
    for item, factor in factors.items():
        if factor != 1:
            item.weight.parameter.mul_(factor)
    if to_scale is not None and not any(item.weight.parameter is to_scale for item in factors):
        to_scale.mul_(output_scale)  # a normalization's
    by_data: Collection[str] = ()
    if rescale is not None:
        by_data = rescale(model, example, targets={item.layer.name: factor for item, factor in factors.items()})
    return [_report(item, None if item.layer.name in by_data else std * factors[item]) for item, std in stds]


def _draw_weight(item: PlannedWeight, generator: Generator | None) -> float:
    """Draw one weight; return the standard deviation that was wanted."""
    if item.scheme is None:
        return item.weight.built_std
    std = draw(item.weight, item.scheme, item.gain, generator)
    padding = getattr(item.layer.module, "padding_idx", None)
    if padding is not None:
        item.weight.parameter[padding].zero_()
    return std


def _draw_bias(item: PlannedBias, generator: Generator | None) -> None:
    if item.std == 0:
        item.bias.zero_()
    elif item.std is not None:
        item.bias.normal_(0.0, item.std, generator=generator)


def _output_layer(layers: list[FoundLayer]) -> FoundLayer | None:
    linear = [layer for layer in layers if layer.is_linear]
    candidates = linear or [layer for layer in layers if layer.is_embedding]
    return candidates[-1] if candidates else None


def _weight_to_scale(output: FoundLayer | None, output_scale: float) -> Tensor | None:
    """Return the weight that sets the scale of the output, or None if there is nothing to do."""
    if output is None or output_scale == 1:
        return None
    scaled = output.module if output.normalization is None else output.normalization
    weight = getattr(scaled, "weight", None)
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


def _report(item: PlannedWeight, std_wanted: float | None) -> LayerReport:
    weight = item.weight.parameter
    return LayerReport(
        layer=item.label,
        shape=tuple(weight.shape),
        fan_in=item.weight.fans[0],
        gain=item.gain,
        std_wanted=std_wanted,
        std_drawn=weight.std(correction=0).item(),
    )
