"""Running statistics beside those of the first batches in validation."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from lightning import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from bnlm.callbacks import Doctor
from bnlm.callbacks.running_statistics_watch import RunningStatisticsWatch


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


class Module(LightningModule):
    def __init__(self, momentum: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        norm = nn.BatchNorm1d(32, momentum=momentum)
        self.net = nn.Sequential(nn.Linear(20, 32, bias=False), norm, nn.ReLU(), nn.Linear(32, 5))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val_loss", F.cross_entropy(self.net(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize(("momentum", "severity"), [(5e-4, "critical"), (0.1, None)])
@pytest.mark.parametrize("size", [32, 64])
def test_whatever_the_size_of_a_batch(
    size: int, momentum: float, severity: str | None, make_trainer: Callable[..., Trainer]
) -> None:
    generator = torch.Generator().manual_seed(0)
    x = 3 + 2 * torch.randn(40 * size, 20, generator=generator)
    data = TensorDataset(x, ((x - 3) @ torch.randn(20, 5, generator=generator)).argmax(1))
    doctor = Doctor(table=False)
    trainer = make_trainer(callbacks=[doctor], max_steps=200, val_check_interval=20, limit_val_batches=1.0)
    trainer.fit(Module(momentum), DataLoader(data, size, shuffle=True), DataLoader(data, size))
    findings = {finding.rule: finding.severity for finding in doctor.findings}
    assert findings.get("R17") == severity
