"""How far running statistics are from those of a batch."""

import torch
from torch import Tensor


def running_statistics_gap(running_mean: Tensor, running_var: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return how far apart the variances and the means are, `()` each, over the channels of `x` `(N, C)`.

    Returns:
        The median of |log(running_var / var)|, and the mean of |running_mean - mean| in standard deviations of `x`.
    """
    var, mean = torch.var_mean(x, dim=0)
    tiny = torch.finfo(x.dtype).tiny
    log_variance = (running_var.clamp_min(tiny) / var.clamp_min(tiny)).log().abs().median()
    return log_variance, ((running_mean - mean).abs() / var.clamp_min(tiny).sqrt()).mean()
