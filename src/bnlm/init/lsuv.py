"""LSUV initialisation: the data sets the scale of each layer."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor, nn

from bnlm.init.initialize import initialize
from bnlm.init.layers import FoundLayer, find_layers
from bnlm.init.orthogonal import orthogonal
from bnlm.init.report import LayerReport
from bnlm.init.untouched import call, first_tensor, untouched

_MAX_ITERATIONS = 10  # as in the paper; without a bias the first one hits


def lsuv(
    model: nn.Module, example: Any, *, tolerance: float = 0.01, generator: Generator | None = None
) -> list[LayerReport]:
    """Draw orthonormal weights, then scale layer after layer until its outputs on ``example`` have variance 1.

    That is `initialize` with `orthogonal`, gain 1 and `unit_variance`; for outputs that start small, overrides and the
    rest, call it so. The model is left as found but for its weights and biases (0).

    Source: Mishkin & Matas 2016, arXiv 1511.06422, algorithm 1.

    Args:
        example: A batch of inputs: the model's argument, a tuple of its arguments, or a mapping of its keywords.
        tolerance: Largest difference of the variance from 1; theirs is 0.1.
    Raises:
        ValueError: If a layer's variance cannot be brought to 1.
    """
    rescale = partial(unit_variance, tolerance=tolerance)
    return initialize(model, orthogonal, gain=1.0, rescale=rescale, example=example, generator=generator)


@torch.no_grad()
def unit_variance(
    model: nn.Module, example: Any, *, targets: Mapping[str, float] | None = None, tolerance: float = 0.01
) -> list[str]:
    """Scale the weights of each layer so that its output on ``example`` has variance 1; in the order of the forward.

    Variance is over all elements of the output, before whatever follows the layer: a normalization after it would undo
    the scale, but its gradients still see it. The model runs in training mode, as the first step will run it; its
    modes, running statistics and torch's random state are put back. One forward is all it takes: a layer's output is
    computed again with its new weight, and the next layers get that.

    Scaled are Linear, Bilinear and convolutions, and for MultiheadAttention its output projection: layers whose output
    grows with their weight. Recurrent layers and embeddings keep what was drawn; so does a weight that a layer shares
    with an embedding, and a layer that does not run or gives a constant.

    Args:
        example: A batch of inputs: the model's argument, a tuple of its arguments, or a mapping of its keywords.
        targets: Standard deviation for a layer by its name, where it is not 1; 0 leaves the layer alone.
        tolerance: Largest difference of the variance from that of the target, as a part of it.
    Returns:
        The names of the layers that were looked at, in the order in which they worked.
    Raises:
        ValueError: If the tolerance is not above 0, or a variance is not finite or cannot be reached.
    """
    if not tolerance > 0:
        raise ValueError(f"init.rescale.tolerance={tolerance!r}: expected a number above 0.")
    targets = targets or {}
    layers = find_layers(model)
    done = {id(layer.module.weight) for layer in layers if layer.is_embedding}
    reached: list[str] = []
    handles = []

    def scale(layer: FoundLayer, module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
        weight = _scaled_weight(module)
        name, target = _name_and_target(layer, targets)
        if id(weight) in done or target == 0:
            return None  # the output stays
        done.add(id(weight))
        reached.append(name)
        return _to_target(name, weight, target, tolerance, output, lambda: module.forward(*args, **kwargs))

    for layer in {layer.module: layer for layer in reversed(layers)}.values():  # of several names the first
        if layer.is_linear or isinstance(layer.module, nn.MultiheadAttention):
            handles.append(layer.module.register_forward_hook(partial(scale, layer), with_kwargs=True))
    try:
        with untouched(model):
            call(model, example)
    finally:
        for handle in handles:
            handle.remove()
    return reached


def _scaled_weight(module: Any) -> Tensor:
    return module.out_proj.weight if isinstance(module, nn.MultiheadAttention) else module.weight


def _name_and_target(layer: FoundLayer, targets: Mapping[str, float]) -> tuple[str, float]:
    is_attention = isinstance(layer.module, nn.MultiheadAttention)
    name = f"{layer.name}.out_proj".lstrip(".") if is_attention else layer.name
    return name, targets.get(name, 1.0)


def _to_target(name: str, weight: Tensor, target: float, tolerance: float, output: Any, again: Any) -> Any:
    """Scale ``weight`` until the output's variance is the target's square; return the output with the last weight."""
    for _ in range(_MAX_ITERATIONS):
        tensor = first_tensor(output)
        assert tensor is not None
        wide = tensor if tensor.dtype == torch.float64 else tensor.float()
        variance = wide.var(correction=0).item() / target**2
        if variance == 0:
            return output
        if abs(variance - 1) <= tolerance:
            return output
        if not 0 < variance < float("inf"):
            break
        weight.div_(variance**0.5)
        output = again()
    raise ValueError(
        f"init.rescale.tolerance={tolerance}: the output of {name} has variance {variance * target**2:.3g} where "
        f"{target**2:.3g} was wanted. Is init.bias larger than that, or the input not finite?"
    )
