"""Running statistics beside those of the first batches in validation."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from bnlm.callbacks.running_statistics_watch import RunningStatisticsWatch
from bnlm.doctor import Finding


@pytest.mark.parametrize(("size", "seen"), [(16, 64), (24, 72), (64, 64), (100, 100), (15, 0)])
def test_small_batches_are_taken_together(size: int, seen: int) -> None:
    """Until there are 64 values per channel, of four batches at most."""
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(8).eval()
    x = 3 + 2 * torch.randn(seen or 60, 8)
    watch = RunningStatisticsWatch()
    watch.attach(norm, ())
    for index, start in enumerate(range(0, 10 * size, size)):
        norm(x[start : start + size] if start < len(x) else 100 * torch.ones(size, 8))
        watch.batch_ends(index)
    if not seen:
        assert watch.gaps == {}
        return
    log_variance, mean = watch.gaps[""]
    assert log_variance == pytest.approx(x.var(dim=0, unbiased=True).log().abs().median().item(), rel=1e-6)
    assert mean == pytest.approx((x.mean(dim=0) / x.std(dim=0, unbiased=True)).abs().mean().item(), rel=1e-6)


@pytest.mark.parametrize(("momentum", "severity"), [(5e-4, "critical"), (0.1, None)])
@pytest.mark.parametrize("size", [32, 64])
def test_whatever_the_size_of_a_batch(
    size: int, momentum: float, severity: str | None, trained_with: Callable[..., dict[str, Finding]]
) -> None:
    found = trained_with(nn.BatchNorm1d(32, momentum=momentum), size, of_validation=size).get("R17")
    assert (found and found.severity) == severity
