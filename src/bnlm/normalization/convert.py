"""Replaces torch.nn's batch normalization by ours in any model, and ours by torch.nn's."""

from __future__ import annotations

from typing import Any, TypeVar

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.lazy import LazyModuleMixin

from bnlm.normalization.batch_norm import BatchNorm

_Layer = TypeVar("_Layer", bound=_BatchNorm)

TORCH_CLASSES: tuple[type[_BatchNorm], ...] = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def convert(model: nn.Module, to: type[_BatchNorm] = BatchNorm) -> nn.Module:
    """Replace batch normalization layers in place and return the model (a new layer, if it is one itself).

    The new layers hold the very parameters and buffers of the old ones, so an optimizer, tied weights, device, type and
    a state dict go on as they were; hooks on the old layers are not taken along. A layer that stands in several places
    still does.

    Args:
        to: `BatchNorm` replaces `torch.nn.BatchNorm1d`, `2d`, `3d` and `SyncBatchNorm` (which becomes ``sync=True``) by
            ours. One of those four replaces ours by torch's: by the class that a layer had before it was converted, or
            that ``sync`` asks for, and otherwise by ``to``. Unlike ours, torch's first three each take one number of
            dimensions, and complain about others. Other layers, also subclasses of these, stay.
    Raises:
        ValueError: For another ``to``, a lazy layer that has seen no input yet, and a layer of ours that torch.nn has
            no equal of (``unbiased=True``, ``channel_dim=-1``); the model is then unchanged.
    """
    if to is not BatchNorm and to not in TORCH_CLASSES:
        names = ", ".join(f"torch.nn.{c.__name__}" for c in TORCH_CLASSES)
        raise ValueError(f"to={to!r}: expected bnlm.normalization.BatchNorm or one of {names}.")
    replacements: dict[nn.Module, nn.Module] = {}
    for path, layer in model.named_modules():
        if to is BatchNorm and isinstance(layer, LazyModuleMixin) and isinstance(layer, _BatchNorm):
            raise ValueError(f"{path or 'model'}: {type(layer).__name__} has no features yet; call the model once.")
        if to is BatchNorm and type(layer) in TORCH_CLASSES:
            assert isinstance(layer, _BatchNorm)
            replacements[layer] = _to_ours(layer)
        elif to is not BatchNorm and type(layer) is BatchNorm:
            replacements[layer] = _to_torch(layer, to, path or "model")
    for parent in list(model.modules()):
        for name, child in parent._modules.items():  # named_children would tell a layer that is there twice once
            if child in replacements:
                parent._modules[name] = replacements[child]
    return replacements.get(model, model)


def _to_ours(layer: _BatchNorm) -> BatchNorm:
    is_sync = isinstance(layer, nn.SyncBatchNorm)
    group: Any = layer.process_group if is_sync else None
    new = BatchNorm(
        layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats, sync=is_sync,
        device="meta",
    )  # fmt: skip
    new.process_group = group
    new.converted_from = None if is_sync else type(layer)
    return _with_state_of(layer, new)


def _to_torch(layer: BatchNorm, to: type[_BatchNorm], path: str) -> _BatchNorm:
    if layer.unbiased or layer.channel_dim != 1:
        raise ValueError(
            f"{path}: {layer} has no equal in torch.nn, whose layers have unbiased=False and channel_dim=1."
        )
    torch_class = nn.SyncBatchNorm if layer.sync else layer.converted_from or to
    new = torch_class(
        layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats, device="meta"
    )
    if isinstance(new, nn.SyncBatchNorm):
        new.process_group = layer.process_group
    return _with_state_of(layer, new)


def _with_state_of(old: _BatchNorm, new: _Layer) -> _Layer:
    new._parameters.update(old._parameters)
    new._buffers.update(old._buffers)
    new.training = old.training
    return new
