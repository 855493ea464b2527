"""How large a gradient and a step are beside the parameter they act on."""

import torch
from torch import Tensor

from bnlm.stats.moments import moment_sums, std_of


def gradient_to_data(gradient: Tensor, parameter: Tensor) -> Tensor:
    """Return std(gradient) / std(parameter), a scalar without unit.

    Source: Karpathy, makemore part 3 ("grad:data ratio"). inf or nan where the parameter does not vary.
    Raises:
        ValueError: If the shapes differ.
    """
    _same_shape(gradient, parameter)
    return std_of(moment_sums(gradient)) / std_of(moment_sums(parameter))


def update_to_data(before: Tensor, after: Tensor) -> Tensor:
    """Return log10(std(after - before) / std(before)), the size of one optimizer step as a power of ten.

    Source: Karpathy, makemore part 3 (there with ``lr * grad``; the measured step holds momentum, weight decay, the
    optimizer's scaling and clipping too). Near -3 in a healthy run; -inf where nothing moved, nan or inf where the
    parameter does not vary (a bias that starts at zero).
    Args:
        before: Parameter before the step; any shape, at least 2 elements.
        after: The same parameter after it; same shape.
    Raises:
        ValueError: If the shapes differ.
    """
    _same_shape(before, after)
    return torch.log10(std_of(moment_sums(difference(before, after))) / std_of(moment_sums(before)))


def difference(before: Tensor, after: Tensor) -> Tensor:
    """Return after - before, in float32 at least: bfloat16 would round a small step away."""
    dtype = torch.promote_types(before.dtype, torch.float32)
    return after.detach().to(dtype) - before.detach().to(dtype)


def _same_shape(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape:
        raise ValueError(f"the two tensors have shapes {tuple(a.shape)} and {tuple(b.shape)}; they must be equal.")
