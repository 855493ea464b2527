"""Merges BatchNorm into the Linear or convolution before it."""

from __future__ import annotations

import copy
from collections import Counter

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils import parametrize

from bnlm.normalization.batch_norm import BatchNorm
from bnlm.normalization.convert import TORCH_CLASSES


def fold(model: nn.Module) -> nn.Module:
    """Return a copy of ``model`` for inference in which BatchNorm is part of the Linear or convolution before it.

    In eval BatchNorm multiplies each channel by a fixed number and adds another. Where its input comes straight from a
    Linear, Conv1d to 3d or ConvTranspose1d to 3d that nothing else uses, these go into that layer:

        scale = bn.weight / sqrt(running_var + eps)
        weight' = weight · scale (per output channel)        bias' = (bias - running_mean) · scale + bn.bias

    (computed in float64), and an Identity takes BatchNorm's place. The outputs in eval are equal up to rounding.
    Layers that cannot be merged stay: those without running statistics, after anything else, called more than once,
    with weights that another module shares, with hooks, or with another channel dimension than the layer before.

    The flow of the data is found by `torch.fx`, without an example of the input. So a Linear before a layer with
    ``channel_dim=1`` (as torch.nn's) is supposed to give ``(N, C)``. On ``(N, T, C)`` such a pair fails, or, where T
    happens to equal C, normalises the positions: do not fold that.

    Source: Jacob et al. 2018, arXiv 1712.05877, equation 14; `torch.nn.utils.fusion`.

    Args:
        model: Is not changed. Its forward must not branch on values of its input.
    Returns:
        The copy, in eval. Training it would be training without normalization.
    Raises:
        ValueError: If the forward cannot be traced, or no layer can be merged.
    """
    folded = copy.deepcopy(model).eval()
    pairs = _pairs(folded)
    if not pairs:
        raise ValueError(
            f"model={type(model).__name__}: no BatchNorm with running statistics directly follows a Linear or a "
            "convolution that it can be merged into."
        )
    for before, norm in pairs:
        linear, layer = folded.get_submodule(before), folded.get_submodule(norm)
        assert isinstance(linear, (nn.Linear, _ConvNd))
        assert isinstance(layer, _BatchNorm)
        _merge(linear, layer)
        parent, _, name = norm.rpartition(".")
        folded.get_submodule(parent)._modules[name] = nn.Identity()
    return folded


@torch.no_grad()
def _merge(linear: nn.Linear | _ConvNd, norm: _BatchNorm) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = torch.rsqrt(_wide(norm.running_var) + norm.eps)
    if norm.weight is not None:
        scale = scale * _wide(norm.weight)
    bias = (0.0 if linear.bias is None else _wide(linear.bias)) - _wide(norm.running_mean)
    bias = bias * scale
    if norm.bias is not None:
        bias = bias + _wide(norm.bias)
    old = linear.weight
    linear.weight = nn.Parameter(_scaled(linear, scale).to(old), requires_grad=old.requires_grad)
    linear.bias = nn.Parameter(bias.to(old), requires_grad=old.requires_grad)


def _scaled(linear: nn.Linear | _ConvNd, scale: Tensor) -> Tensor:
    """Return the weight in float64, each output channel multiplied by its ``scale`` (C,)."""
    weight = _wide(linear.weight)
    if isinstance(linear, _ConvTransposeNd):  # (in, out / groups, *kernel), the inputs of a group beside each other
        grouped = weight.unflatten(0, (linear.groups, -1))
        per_channel = scale.view(linear.groups, 1, -1, *[1] * (weight.dim() - 2))
        return (grouped * per_channel).flatten(0, 1)
    return weight * scale.view(-1, *[1] * (weight.dim() - 1))  # (out, in / groups, *kernel)


def _wide(x: Tensor) -> Tensor:
    return x.detach().to("cpu", torch.float64)  # not every device has float64


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, _BatchNorm) or super().is_leaf_module(m, module_qualified_name)


def _pairs(model: nn.Module) -> list[tuple[str, str]]:
    """Return the paths of the layers to merge, and of the BatchNorm that goes into each."""
    try:
        graph = _Tracer().trace(model)
    except Exception as error:  # whatever the forward of an unknown model raises on a proxy
        first = (str(error).splitlines() or [""])[0]
        raise ValueError(
            f"model={type(model).__name__}: its forward cannot be traced by torch.fx ({first}). Fold the parts of it "
            "whose forward does not depend on values."
        ) from error
    modules = dict(model.named_modules(remove_duplicate=False))
    calls = Counter(modules[str(node.target)] for node in graph.nodes if node.op == "call_module")
    holders = Counter(p for m in set(modules.values()) for p in m._parameters.values() if p is not None)
    holders.update(model.get_parameter(p) for p in _read_directly(graph, model))
    pairs = []
    for node in graph.nodes:
        source = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(source, fx.Node) or source.op != "call_module" or len(source.users) > 1:
            continue
        linear, norm = modules[str(source.target)], modules[str(node.target)]
        once = calls[linear] == calls[norm] == 1 and all(
            holders[p] == 1 for p in (*linear.parameters(), *norm.parameters())
        )
        if once and _fit(linear, norm) and not _has_hooks(linear) and not _has_hooks(norm):
            pairs.append((str(source.target), str(node.target)))
    return pairs


def _read_directly(graph: fx.Graph, model: nn.Module) -> set[str]:
    """Return the parameters that the forward takes out of their modules, as in ``F.linear(x, self.emb.weight)``."""
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    return parameters & {str(node.target) for node in graph.nodes if node.op == "get_attr"}


def _fit(linear: nn.Module, norm: nn.Module) -> bool:
    if not isinstance(norm, (BatchNorm, *TORCH_CLASSES)) or norm.running_mean is None or norm.running_var is None:
        return False
    if parametrize.is_parametrized(linear):
        return False
    if isinstance(linear, nn.Linear):
        return linear.out_features == norm.num_features
    if isinstance(linear, _ConvNd):
        return linear.out_channels == norm.num_features and getattr(norm, "channel_dim", 1) == 1
    return False


def _has_hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)
