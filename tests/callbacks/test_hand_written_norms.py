"""BatchNorms that somebody wrote out: too few values, statistics that do not follow, and what only looks like one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnlm.doctor import Finding, check

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:var")

TrainedWith = Callable[..., dict[str, Finding]]


class ByHand(nn.Module):
    """As the lecture writes it, for `(N, C)` and `(N, C, H, W)`; `keeps` is how much of a batch the statistics take."""

    def __init__(self, channels: int, keeps: float = 0.1, names: str = "running") -> None:
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.keeps, self.names = keeps, names
        self.register_buffer(f"{names}_mean", torch.zeros(channels))
        self.register_buffer(f"{names}_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        dims = [0, *range(2, x.ndim)]
        mean, var = getattr(self, f"{self.names}_mean"), getattr(self, f"{self.names}_var")
        if self.training:
            with torch.no_grad():
                mean.lerp_(x.mean(dims), self.keeps)
                var.lerp_(x.var(dims), self.keeps)
            mean, var = x.mean(dims), x.var(dims, unbiased=False)
        shape = [1, -1, *[1] * (x.ndim - 2)]
        x = (x - mean.view(shape)) / (var.view(shape) + 1e-5).sqrt()
        return x * self.gamma.view(shape) + self.beta.view(shape)


class Frozen(ByHand):
    """Normalizes with its statistics in training, too, and looks like the other."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.running_mean) / (self.running_var + 1e-5).sqrt() * self.gamma + self.beta


@pytest.mark.parametrize("norm", [ByHand(32), nn.BatchNorm1d(32)])
def test_one_that_is_called_with_a_keyword(norm: nn.Module, trained_with: TrainedWith) -> None:
    class ByKeyword(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = norm

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(**{"x" if isinstance(norm, ByHand) else "input": x})

    assert trained_with(ByKeyword(), 2)["R16"].where == "net.1.norm"


@pytest.mark.parametrize("names", ["running", "moving"])
@pytest.mark.parametrize(("size", "severity"), [(1, "critical"), (2, "warning"), (12, "note")])
def test_too_few_values(size: int, severity: str, names: str, trained_with: TrainedWith) -> None:
    found = trained_with(ByHand(32, names=names), size)["R16"]
    assert (found.severity, found.where, found.value) == (severity, "net.1", size)


def test_one_that_is_well(trained_with: TrainedWith) -> None:
    assert [finding for finding in trained_with(ByHand(32)).values() if finding.severity != "note"] == []


def test_statistics_that_do_not_follow(trained_with: TrainedWith) -> None:
    found = trained_with(ByHand(32, keeps=0.0))["R17"]
    assert (found.severity, found.where) == ("critical", "net.1")
    assert "by hand" in found.suggestion
    assert "left in them" not in found.message  # nobody knows what its momentum means


def test_one_that_takes_no_batch_s_statistics(trained_with: TrainedWith) -> None:
    assert "R16" not in trained_with(Frozen(32), 2)


def test_values_per_channel_of_pictures() -> None:
    """A batch of 2 has 2 * 2 * 3 values in each channel."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), ByHand(8), nn.ReLU(), nn.Flatten(), nn.Linear(48, 5))
    findings = check(net, (torch.randn(2, 3, 2, 3), torch.tensor([1, 2])), F.cross_entropy, table=False)
    assert [(f.severity, f.where, f.value) for f in findings if f.rule == "R16"] == [("note", "1", 12)]


def test_statistics_that_are_no_buffers_are_as_before() -> None:
    class Plain(nn.Module):
        """As `Dive into Deep Learning` holds them: tensors, which each forward replaces."""

        def __init__(self) -> None:
            super().__init__()
            self.gamma, self.moving_mean, self.moving_var = nn.Parameter(torch.ones(8)), torch.zeros(8), torch.ones(8)

        def forward(self, x: Tensor) -> Tensor:
            self.moving_mean = 0.9 * self.moving_mean + 0.1 * x.detach().mean(0)
            self.moving_var.lerp_(x.detach().var(0), 0.1)
            return self.gamma * (x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-5).sqrt()

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), Plain(), nn.ReLU(), nn.Linear(8, 5))
    findings = check(net, (torch.randn(4, 6), torch.tensor([0, 1, 2, 3])), F.cross_entropy, table=False)
    assert [(f.severity, f.where) for f in findings if f.rule == "R16"] == [("warning", "1")]
    assert net[1].moving_mean.eq(0).all()
    assert net[1].moving_var.eq(1).all()


def test_one_with_nothing_to_train_is_left_alone() -> None:
    """It normalizes what an environment shows, by all it has ever seen: the first batch is all, then."""
    norm = ByHand(6).requires_grad_(False)
    net = nn.Sequential(norm, nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5))
    findings = check(net, (torch.randn(4, 6), torch.tensor([0, 1, 2, 3])), F.cross_entropy, table=False)
    assert "R16" not in {finding.rule for finding in findings}
