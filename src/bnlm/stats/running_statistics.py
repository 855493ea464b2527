"""How far running statistics are from those of a batch."""

import torch
from torch import Tensor

#: A variance below this share of the mean square is what rounding leaves of a constant.
VARIES = 1e-10


def running_statistics_gap(running_mean: Tensor, running_var: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return how far apart the variances and the means are, `()` each, over the channels of `x` `(N, C)` that vary.

    Returns:
        The median of |log(running_var / var)|, and the mean of |running_mean - mean| in standard deviations of `x`; 0
        where no channel varies: what is dead has no statistics to be wrong.
    """
    var, mean = torch.var_mean(x, dim=0)
    varies = var > VARIES * (var + mean.square())
    if not varies.any():
        return x.new_zeros(()), x.new_zeros(())
    var, mean = var[varies], mean[varies]
    log_variance = (running_var[varies].clamp_min(torch.finfo(x.dtype).tiny) / var).log().abs().median()
    return log_variance, ((running_mean[varies] - mean).abs() / var.sqrt()).mean()
