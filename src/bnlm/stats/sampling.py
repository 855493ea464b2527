"""A bounded look at a large activation."""

from torch import Tensor

#: Elements of one activation that are looked at, per call: more would cost more than they tell.
MAX_ELEMENTS = 1 << 18


def bounded(x: Tensor, channel_dim: int) -> Tensor:
    """Return `x`, or evenly spaced slices of it that hold at most about `MAX_ELEMENTS` elements and all channels.

    Examples (dimension 0) are thinned first, then the positions of the largest remaining dimension.
    """
    while x.numel() > MAX_ELEMENTS:
        candidates = [d for d in range(x.ndim) if d != channel_dim % x.ndim and x.shape[d] > 1]
        if not candidates:
            return x
        dim = candidates[0] if candidates[0] == 0 else max(candidates, key=lambda d: x.shape[d])
        stride = min(x.shape[dim], -(-x.numel() // MAX_ELEMENTS))
        index = [slice(None)] * x.ndim
        index[dim] = slice(None, None, stride)
        x = x[tuple(index)]
    return x
