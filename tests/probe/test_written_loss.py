"""Losses that are written out tell what torch's own functions tell."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnlm.doctor import Finding, check
from bnlm.probe import ActivationTap, LossRecord
from bnlm.probe.loss_record import FIXED

Loss = Callable[[Tensor, Tensor], Tensor]
ROWS = torch.arange(64)


def record_of(loss: Loss, outputs: int, target: Tensor) -> LossRecord | None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 32), nn.Tanh(), nn.Linear(32, outputs))
    tap = ActivationTap(model, losses=True)
    tap.attach()
    try:
        loss(model(torch.randn(64, 10)), target)
    finally:
        tap.detach()
    losses = tap.record().losses
    return losses[0] if losses else None


@pytest.mark.parametrize(
    ("written", "function"),
    [
        (lambda y, t: ((y - t) ** 2).mean(), F.mse_loss),
        (lambda y, t: 0.5 * (t - y).pow(2).sum(), F.mse_loss),
        (lambda y, t: torch.mean(torch.square(torch.sub(y, t))), F.mse_loss),
        (lambda y, t: (y - t).square().sum(1).mean(), F.mse_loss),
        (lambda y, t: (y - t).abs().mean(), F.l1_loss),
    ],
)
def test_distances(written: Loss, function: Loss) -> None:
    target = torch.randn(64, 3)
    record, reference = record_of(written, 3, target), record_of(function, 3, target)
    assert record is not None
    assert reference is not None
    torch.testing.assert_close(record.values, reference.values, equal_nan=True, rtol=1e-6, atol=0)
    assert record.kind == reference.kind
    assert record.scales == (0.5, 1.0, 1.5, 3.0, 96.0, 192.0)
    assert reference.scales == ()


@pytest.mark.parametrize(
    "written",
    [
        lambda y, t: -y.log_softmax(1)[ROWS, t].mean(),
        lambda y, t: -F.log_softmax(y, dim=-1)[range(64), t].sum(),
        lambda y, t: -torch.log(y.softmax(1)[ROWS, t]).mean(),
        lambda y, t: -torch.log_softmax(y, 1).gather(1, t[:, None]).mean(),
        lambda y, t: -y.log_softmax(-1).gather(dim=-1, index=t.unsqueeze(-1)).mean(),
        lambda y, t: (y.logsumexp(1) - y[ROWS, t]).mean(),
    ],
)
def test_classes(written: Loss) -> None:
    target = torch.randint(5, (64,))
    record = record_of(written, 5, target)
    reference = record_of(F.cross_entropy, 5, target)
    assert record is not None
    assert reference is not None
    # How far examples differ is told of log-probabilities where these are all that is given.
    but_spread = torch.arange(len(reference.values)) != FIXED - 1
    given, wanted = record.values[but_spread], reference.values[but_spread]
    torch.testing.assert_close(given, wanted, equal_nan=True, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("loss", "floor"),
    [
        (lambda y, t: F.nll_loss(F.log_softmax(y.softmax(1), dim=1), t), 0.9048),
        (lambda y, t: -y.softmax(1).log_softmax(1)[ROWS, t].mean(), 0.9048),
        (lambda y, t: F.nll_loss(nn.LogSoftmax(1)(y.softmax(1).reshape(64, 5)), t), 0.9048),
        (lambda y, t: F.nll_loss(y.log_softmax(0), t), -math.inf),  # over the examples
        (lambda y, t: F.nll_loss(y.log_softmax(1), t), math.nan),
        (lambda y, t: F.nll_loss(y.T.reshape(1, 5, 64).log_softmax(1), t[None]), math.nan),
        (lambda y, t: F.nll_loss(torch.tanh(y).log_softmax(1), t), 0.4327),
    ],
)
def test_what_log_softmax_was_taken_of(loss: Loss, floor: float) -> None:
    record = record_of(loss, 5, torch.randint(5, (64,)))
    assert record is not None
    assert record.values[5].item() == pytest.approx(floor, abs=1e-4, nan_ok=True)


@pytest.mark.parametrize(
    "other",
    [
        lambda y, t: y.log_softmax(1)[ROWS.flip(0), t].mean(),  # of other examples
        lambda y, t: (y - y.mean()).square().mean(),  # a spread
        lambda y, t: (y - 1).square().mean(),
        lambda y, t: (y - t[:, None].float()).pow(3).mean(),
        lambda y, t: (y.detach() - t[:, None].float()).square().mean(),
    ],
)
def test_what_is_none(other: Loss) -> None:
    assert record_of(other, 5, torch.randint(5, (64,))) is None


def rules(findings: list[Finding]) -> list[str]:
    return [finding.rule for finding in findings]


def test_the_doctor_believes_what_is_the_whole_loss_alone() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 32), nn.Tanh(), nn.Linear(32, 5))
    with torch.no_grad():
        model[2].weight.mul_(30)
    batch = torch.randn(64, 10), torch.randint(5, (64,))

    def plain(y: Tensor, t: Tensor) -> Tensor:
        return -y.log_softmax(1)[ROWS, t].mean()

    assert rules(check(model, batch, plain, table=False)) == ["R02", "R01"]
    assert rules(check(model, batch, lambda y, t: -y[ROWS, t].mean(), table=False)) == []  # scores
    assert rules(check(model, batch, lambda y, t: plain(y, t) * 0.3, table=False)) == []  # who knows what this is
    assert rules(check(model, batch, lambda y, t: F.cross_entropy(y, t) + plain(y, t), table=False)) == ["R02", "R01"]


def test_outputs_held_against_the_targets_of_others() -> None:
    """What torch's own functions warn of, and this passes in silence."""
    record = record_of(lambda y, t: ((y - t) ** 2).mean(), 1, torch.randn(64))
    assert record is not None
    assert record.broadcast
    assert record.scales == (0.5, 1.0, 32.0, 64.0, 2048.0, 4096.0)


def test_micro_batches_are_averaged() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 32), nn.Tanh(), nn.Linear(32, 5))
    x, target = torch.randn(128, 10), torch.randint(5, (128,))
    tap = ActivationTap(model, losses=True)
    tap.attach()
    try:
        for half in (slice(0, 64), slice(64, 128)):
            (-model(x[half]).log_softmax(1)[ROWS, target[half]].mean()).backward()
    finally:
        tap.detach()
    (record,) = tap.record().losses
    losses = F.cross_entropy(model(x).double(), target, reduction="none").detach()
    assert record.values[0].item() == pytest.approx(float(losses.mean()), rel=1e-6)
    assert record.values[1].item() == pytest.approx(float(losses.std() / 128**0.5), rel=0.05)
    assert record.values[FIXED:].tolist() == target.bincount(minlength=5).tolist()


@pytest.mark.parametrize(
    "call",
    [
        lambda y: torch.square(input=y),
        lambda y: torch.abs(input=y),
        lambda y: torch.pow(input=y, exponent=2),
        lambda y: torch.sub(input=y, other=1.0),
        lambda y: torch.sub(y, other=torch.ones(5)),
        lambda y: F.log_softmax(input=y, dim=1),
        lambda y: torch.gather(input=y, dim=1, index=torch.zeros(64, 1, dtype=torch.int64)),
        lambda y: y[ROWS, torch.full((64,), -1)],  # the last ones
        lambda y: y.sum()[()],
        lambda y: y[0, None].gather(1, torch.zeros(1, 1, dtype=torch.int64)),
    ],
)
def test_whatever_is_called_is_let_through(call: Callable[[Tensor], Tensor]) -> None:
    """As a part of some network, in whatever form torch accepts."""
    record_of(lambda y, t: call(y).sum(), 5, torch.zeros(64))
