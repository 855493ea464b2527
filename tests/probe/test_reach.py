"""What outputs that come straight out of an activation cannot reach, against a search over its range."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnlm.probe import ActivationTap, LossRecord
from bnlm.probe.reach import RANGES
from bnlm.probe.torch_functions import ACTIVATION_FUNCTIONS


@pytest.mark.parametrize("kind", RANGES)
def test_ranges(kind: str) -> None:
    """To 1e-3: nothing is below, and the limit is come near to."""
    function = next(f for f, name in ACTIVATION_FUNCTIONS.items() if name == kind)
    x = torch.cat([torch.linspace(-50, 50, 100_001, dtype=torch.float64), torch.tensor([-1e6, 1e6]).double()])
    y = function(x)
    low, high = RANGES[kind]
    assert float(y.min()) >= low
    assert float(y.max()) <= high
    assert math.isinf(low) or float(y.min()) < low + 1e-3
    assert math.isinf(high) or float(y.max()) > high - 1e-3


def record_of(last: nn.Module, target: Tensor, outputs: int, loss: str) -> LossRecord:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 16), nn.Tanh(), nn.Linear(16, outputs), last)
    tap = ActivationTap(model, losses=True)
    tap.attach()
    try:
        out = model(torch.randn(64, 10))
        getattr(F, loss)(out.squeeze(1) if target.ndim == 1 and outputs == 1 else out, target)
    finally:
        tap.detach()
    return tap.record().losses[0]


@pytest.mark.parametrize(
    ("last", "low", "high"),
    [(nn.ReLU(), 0, 9), (nn.Tanh(), -1, 1), (nn.Sigmoid(), 0, 1), (nn.Hardtanh(-0.5, 2.0), -0.5, 2.0)],
)
@pytest.mark.parametrize("loss", ["mse_loss", "l1_loss", "huber_loss", "binary_cross_entropy_with_logits"])
def test_floors_of_distances_and_of_logits(last: nn.Module, low: float, high: float, loss: str) -> None:
    """To 1e-3, which is what the grid leaves of the logits' curve."""
    torch.manual_seed(1)
    target = torch.rand(64) if loss.startswith("binary") else torch.randn(64)
    record = record_of(last, target, 1, loss)
    grid = torch.linspace(low, high, 2001).double()[:, None].expand(-1, 64)
    least = getattr(F, loss)(grid, target.double().expand(2001, -1), reduction="none").min(dim=0).values.mean()
    assert record.values[5].item() == pytest.approx(float(least), abs=1e-3)
    assert record.activation == type(last).__name__.lower()


@pytest.mark.parametrize(("last", "high", "low"), [(nn.Tanh(), 1, -1), (nn.Sigmoid(), 1, 0), (nn.ReLU6(), 6, 0)])
def test_floors_of_classes(last: nn.Module, high: float, low: float) -> None:
    record = record_of(last, torch.randint(5, (64,)), 5, "cross_entropy")
    best = torch.full((1, 5), float(low)).double()
    best[0, 2] = high
    assert record.values[5].item() == pytest.approx(float(F.cross_entropy(best, torch.tensor([2]))), rel=1e-5)


class Twice(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * torch.tanh(x)


@pytest.mark.parametrize("last", [nn.Identity(), Twice(), nn.LeakyReLU(), nn.Sequential(nn.Tanh(), nn.Linear(1, 1))])
def test_what_comes_out_of_no_activation(last: nn.Module) -> None:
    record = record_of(last, torch.randn(64), 1, "mse_loss")
    assert record.activation == ""
    assert math.isnan(record.values[5].item())
