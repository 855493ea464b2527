"""Lets `torch.nn.SyncBatchNorm.convert_sync_batchnorm` know our BatchNorm."""

from __future__ import annotations

from typing import Any

from torch import nn

from bnlm.normalization.batch_norm import BatchNorm


def honour_convert_sync_batchnorm() -> None:
    """Make torch's ``convert_sync_batchnorm`` switch ours to ``sync=True`` instead of replacing it.

    Lightning's ``Trainer(sync_batchnorm=True)``, Accelerate and plain torch scripts all synchronise a model by that one
    method, which offers no way to register a layer. Left as it is, it would put torch's SyncBatchNorm in the place of
    ours: another formula where ours is unbiased, other channels where ``channel_dim=-1``, an error on a processor. So
    it is extended, once, when `bnlm.normalization` is imported; for every other layer it stays as it was. A subclass of
    ours is refused with a ValueError: virtual batches and the like have no statistics over processes.
    """
    original = nn.SyncBatchNorm.convert_sync_batchnorm.__func__  # type: ignore[attr-defined]
    if getattr(original, "knows_bnlm", False):
        return

    def convert_sync_batchnorm(cls: type, module: nn.Module, process_group: Any = None) -> nn.Module:
        if isinstance(module, BatchNorm):
            if type(module) is not BatchNorm:
                raise ValueError(
                    f"sync_batchnorm=True: {type(module).__name__} cannot take its statistics over several processes; "
                    "leave it false, or use bnlm.normalization.BatchNorm (normalization=batch)."
                )
            module.sync = True
            module.process_group = process_group
            return module
        return original(cls, module, process_group)  # comes back here for every child

    convert_sync_batchnorm.__doc__ = original.__doc__
    convert_sync_batchnorm.knows_bnlm = True  # type: ignore[attr-defined]
    nn.SyncBatchNorm.convert_sync_batchnorm = classmethod(convert_sync_batchnorm)  # type: ignore[assignment, method-assign]
