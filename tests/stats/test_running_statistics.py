"""The gap between running statistics and a batch, against a closed form."""

import math

import torch
from torch.testing import assert_close

from bnlm.stats import running_statistics_gap


def test_gap_is_that_of_shifted_and_scaled_statistics() -> None:
    x = torch.randn(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    var, mean = torch.var_mean(x, dim=0)
    factors = torch.tensor([2.0, 0.25, 3.0], dtype=torch.float64)
    shifts = torch.tensor([0.1, -0.2, 0.6], dtype=torch.float64)  # in standard deviations
    log_variance, gap = running_statistics_gap(mean + shifts * var.sqrt(), var * factors, x)
    assert_close(log_variance.item(), math.log(3), rtol=1e-12, atol=0)  # the median of log 2, log 4 and log 3
    assert_close(gap.item(), 0.3, rtol=1e-12, atol=0)


def test_a_channel_that_does_not_vary_gives_a_finite_gap() -> None:
    x = torch.cat([torch.randn(20, 2), torch.ones(20, 1)], dim=1)
    found = running_statistics_gap(x.mean(0), x.var(0), x)
    assert all(bool(value.isfinite()) for value in found)


def test_channels_that_do_not_vary_are_left_out() -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 3)
    x[:, 1] = 0.7
    mean, var = torch.zeros(3), torch.tensor([2.0, 1e-20, 2.0])
    alone = running_statistics_gap(mean[[0, 2]], var[[0, 2]], x[:, [0, 2]])
    assert [t.item() for t in running_statistics_gap(mean, var, x)] == [t.item() for t in alone]
    assert [t.item() for t in running_statistics_gap(mean[1:2], var[1:2], x[:, 1:2])] == [0.0, 0.0]
