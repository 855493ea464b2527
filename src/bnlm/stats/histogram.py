"""Histograms counted on the device, so that only the counts have to reach the host."""

import torch
from torch import Tensor

from bnlm.stats.moments import accumulation_dtype

BINS = 64


def histogram(x: Tensor) -> Tensor:
    """Return `(2 + BINS,)`: smallest and largest finite value of `x`, then how many fall into each of `BINS` bins.

    The bins divide [min, max] evenly, the last one closed. Nothing here waits for the device (`torch.histc` would,
    since it wants its limits as numbers). A tensor without spread has all its counts in the first bin; values that are
    not finite are left out, and an empty histogram has nan for its limits.
    """
    x = x.detach().reshape(-1).to(accumulation_dtype(x.device))
    finite = x.isfinite()
    low = torch.where(finite, x, torch.inf).amin() if x.numel() else x.new_tensor(torch.inf)
    high = torch.where(finite, x, -torch.inf).amax() if x.numel() else x.new_tensor(-torch.inf)
    width = (high - low) / BINS
    position = torch.where(finite & (width > 0), (x - low) / width, 0.0).nan_to_num()
    counts = x.new_zeros(BINS).index_add_(0, position.long().clamp(0, BINS - 1), finite.to(x.dtype))
    empty = low > high
    return torch.cat([torch.where(empty, torch.nan, torch.stack([low, high])), counts])


def bin_edges(low: float, high: float) -> list[float]:
    """Return the `BINS + 1` edges of a histogram with these limits."""
    return torch.linspace(low, high, BINS + 1, dtype=torch.float64).tolist()
