"""The plain tensor behind what a function is called with, also under `torch.vmap`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bnlm.stats import MAX_ELEMENTS, bounded

#: Whether a tensor stands for several, or is within another transform: it has no values to be read.
is_mapped: Callable[[Tensor], bool] = torch._C._functorch.is_functorch_wrapped_tensor


def values_of(x: Any) -> tuple[Tensor | None, int | None]:
    """Return the plain tensor behind `x`, and the dimension that `torch.vmap` maps over, if it does.

    None for what is no strided tensor of real numbers, or empty, or on the meta device, or in a transform of another
    kind (or two of them).
    """
    dim = None
    if not isinstance(x, Tensor):
        return None, None
    if is_mapped(x):
        if not torch._C._functorch.is_batchedtensor(x):
            return None, None
        dim, x = torch._C._functorch.maybe_get_bdim(x), torch._C._functorch.get_unwrapped(x)
        if is_mapped(x):
            return None, None
    strided = x.layout == torch.strided and not x.is_nested and not x.is_meta
    usable = x.is_floating_point() and strided and x.numel() > 0
    return (x, dim) if usable else (None, None)


def real(x: Tensor) -> Tensor:
    """Return `x` as a dense tensor of real numbers; of complex ones the real and the imaginary parts."""
    x = x.to_dense() if x.is_sparse else x
    return torch.view_as_real(x.resolve_conj()) if x.is_complex() else x


def place_of(x: Tensor) -> int | None:
    """Return where in memory `x` begins, by which a view of it is known; None of what has no memory of its own."""
    try:
        return x.data_ptr()
    except RuntimeError:  # as a subclass that wraps another tensor
        return None


def behind(channel_dim: int, mapped: int | None) -> int:
    """Return where the channels are once the dimension that `vmap` maps over stands in front."""
    return channel_dim if mapped is None or channel_dim < 0 else channel_dim + 1


def copied(values: Tensor, mapped: int | None, channel_dim: int) -> Tensor:
    """Return a copy of `values` (slices of large ones), with the dimension that `vmap` maps over in front."""
    values = values.detach()
    if mapped is not None:
        values = values.movedim(mapped, 0)
    seen = values if values.numel() <= MAX_ELEMENTS else bounded(values, behind(channel_dim, mapped))
    return seen.clone() if seen is values else seen
