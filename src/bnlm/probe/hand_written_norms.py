"""BatchNorms that somebody wrote out: they are known by what they hold and do, not by what they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

#: What a BatchNorm without a bias yet returns has a mean over the batch of at most so much of its largest value.
CENTRED = 1e-3


def hand_written_batch_norms(root: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield path and module of what may be one: it has running statistics, is trained, and calls no other module.

    What only looks like one, as a frozen one, `centres` tells.
    """
    for path, module in root.named_modules():
        if type(module).__module__.startswith("torch.") or any(True for _ in module.children()):
            continue
        if statistics_of(module) is not None and any(p.requires_grad for p in module.parameters()):
            yield path, module


def statistics_of(module: nn.Module) -> tuple[Tensor, Tensor] | None:
    """Return a module's running mean and variance `(C,)`, by torch's names or as `moving_mean` and `moving_var`."""
    for name in ("running", "moving"):
        mean, var = getattr(module, f"{name}_mean", None), getattr(module, f"{name}_var", None)
        if isinstance(mean, Tensor) and isinstance(var, Tensor) and mean.numel() == var.numel() > 0:
            return mean.detach().flatten(), var.detach().flatten()
    return None


def by_channel(x: Any, channels: int, dim: int = 1) -> Tensor | None:
    """Return the values `(n, C)` of each channel, of which there are so many, in `dim` or else in the last dimension.

    None where `x` has none such, or is vmapped, so that its values cannot be read.
    """
    if not isinstance(x, Tensor) or x.ndim < 2 or torch._C._functorch.is_functorch_wrapped_tensor(x):
        return None
    dims = [each for each in (dim, -1) if x.shape[each] == channels]
    return x.detach().float().movedim(dims[0], -1).flatten(0, -2) if dims else None


def centres(values: Tensor) -> bool:
    """Return whether what a module returned, `(n, C)`, has the mean 0 in each channel, or is nan, as of one value."""
    return not bool((values.mean(dim=0).abs() > CENTRED * values.abs().max().clamp_min(CENTRED)).any())
