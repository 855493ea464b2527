"""Moments of a tensor as sums, so that parts seen at different times or on different ranks can be added.

The sums are float64 where the device has it: the mean of thousands of tanh outputs is close to zero, and a float32 sum
would lose the digits that matter.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def accumulation_dtype(device: torch.device) -> torch.dtype:
    """Return float64, or float32 on Apple's GPUs, which have no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def moment_sums(x: Tensor) -> Tensor:
    """Return `(3,)`: number of elements, sum, sum of squares of `x` (any shape)."""
    dtype = accumulation_dtype(x.device)
    x = x.detach()
    if x.numel() <= 1 << 20:  # one small copy is cheaper than two reductions that convert
        x = x.to(dtype).reshape(-1)
        total, squares = x.sum(), torch.dot(x, x)
    else:
        total, squares = x.sum(dtype=dtype), torch.linalg.vector_norm(x, dtype=dtype).square()
    return torch.stack([torch.full_like(total, x.numel()), total, squares])


def moment_sums_of(tensors: Sequence[Tensor]) -> Tensor:
    """Return `(len(tensors), 3)`: `moment_sums` of each, with fewer calls than one after the other."""
    dtype = accumulation_dtype(tensors[0].device)
    tensors = [t.detach() for t in tensors]
    norms = torch.stack(list(torch._foreach_norm(tensors, 2, dtype=dtype)))
    totals = torch.stack([t.sum(dtype=dtype) for t in tensors])
    counts = torch.tensor([t.numel() for t in tensors], dtype=dtype, device=norms.device)
    return torch.stack([counts, totals, norms * norms], dim=1)


def mean_of(sums: Tensor) -> Tensor:
    """Return the mean from moment sums `(..., 3)`, shape `(...)`."""
    return sums[..., 1] / sums[..., 0]


def std_of(sums: Tensor) -> Tensor:
    """Return the standard deviation from moment sums `(..., 3)`, shape `(...)`.

    With n - 1 in the denominator, as `torch.std` has it and the lecture uses it; nan for fewer than two elements. A
    spread below 1e-7 of the values' size, which float32 could not hold, is rounding: it counts as none.
    """
    count, total, squares = sums.unbind(-1)
    variance = (squares - total * total / count) / (count - 1)
    return torch.where(variance <= 1e-14 * squares / count, 0.0, variance).sqrt()
