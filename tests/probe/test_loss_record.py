"""What a call of a loss function tells, against plain formulas in float64."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bnlm.probe.loss_record import FIXED, MAX_COUNTED, loss_record


def values(kind: str, x: Tensor, target: Tensor) -> list[float]:
    record = loss_record(kind, x, target)
    assert record is not None
    return record.values.tolist()


def test_a_squared_error() -> None:
    torch.manual_seed(0)
    x, target = torch.randn(16, 3), 5 + torch.randn(16, 3) * torch.tensor([1.0, 2.0, 3.0])
    loss, error, reference, logit_std, constant, *_ = values("mse_loss", x, target)
    losses, y = (x - target).double().square(), target.double()
    assert loss == pytest.approx(float(losses.mean()), rel=1e-6)
    assert error == pytest.approx(float(losses.std()) / 48**0.5, rel=1e-6)
    assert reference == pytest.approx(float(y.square().mean()), rel=1e-6)
    assert math.isnan(logit_std)
    # One constant for each of the three places; (1 + 4 + 9) / 3 but for the noise of sixteen.
    assert constant == pytest.approx(float((y - y.mean(0)).square().sum() / 15 / 3), rel=1e-6)
    assert constant < 8 < reference


@pytest.mark.parametrize(("x", "target"), [((16, 1), (16,)), ((16,), (16, 1))])
def test_outputs_and_targets_of_other_shapes(x: tuple[int, ...], target: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    y = torch.randn(target)
    record = loss_record("mse_loss", torch.zeros(x), y)
    assert record is not None
    assert record.broadcast
    assert record.values[0].item() == pytest.approx(float(y.double().square().mean()), rel=1e-6)
    assert record.values[4].item() == pytest.approx(float(y.double().var()), rel=1e-6)


def test_what_is_no_loss_of_a_known_form() -> None:
    assert loss_record("mse_loss", torch.zeros(4, 3), torch.zeros(4, 2)) is None
    assert loss_record("binary_cross_entropy", torch.zeros(4, 1), torch.zeros(4)) is None
    assert loss_record("cross_entropy", torch.zeros(4, 3), torch.zeros(4, 2)) is None
    made_by_the_network = torch.zeros(4, 3, requires_grad=True)
    assert loss_record("mse_loss", torch.zeros(4, 3), made_by_the_network) is None


@pytest.mark.parametrize("shape", [(), (1,), (1, 5)])
def test_a_single_example_has_no_variance(shape: tuple[int, ...]) -> None:
    target = torch.full(shape, 3.0)
    assert values("mse_loss", torch.zeros(shape), target)[4] == 9.0


def test_classes() -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(64, 7), torch.randint(7, (64,))
    target[3] = -100
    loss, error, reference, logit_std, constant, floor, _, *counts = values("cross_entropy", logits, target)
    logits, target = logits[target >= 0], target[target >= 0]
    losses = F.cross_entropy(logits.double(), target, reduction="none")
    assert loss == pytest.approx(float(losses.mean()), rel=1e-6)
    assert error == pytest.approx(float(losses.std()) / math.sqrt(63), rel=1e-6)
    assert reference == pytest.approx(math.log(7), rel=1e-6)
    assert counts == [int((target == label).sum()) for label in range(7)]
    assert logit_std == pytest.approx(float(logits.double().std(dim=1).mean()), rel=1e-6)
    assert math.isnan(constant)
    assert math.isnan(floor)


def test_weights_of_classes() -> None:
    torch.manual_seed(0)
    logits, target, weight = torch.randn(64, 3), torch.randint(3, (64,)), torch.tensor([1.0, 5.0, 20.0])
    target[3] = -100
    record = loss_record("cross_entropy", logits, target, weight=weight)
    assert record is not None
    loss, error, reference, _, _, floor, _ = record.values.tolist()
    assert loss == pytest.approx(float(F.cross_entropy(logits.double(), target, weight.double())), rel=1e-6)
    assert reference == pytest.approx(math.log(3), rel=1e-6)
    kept = target >= 0
    w, losses = weight.double()[target[kept]], F.cross_entropy(logits[kept].double(), target[kept], reduction="none")
    assert error == pytest.approx(float((w * (losses - loss)).norm() / w.sum() * math.sqrt(63 / 62)), rel=1e-6)
    assert math.isnan(floor)  # and no counts: how frequent they are is not what the loss tells


@pytest.mark.parametrize("kind", ["binary_cross_entropy", "binary_cross_entropy_with_logits"])
def test_weights_of_binary_targets(kind: str) -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(64, 2), (torch.rand(64, 2) < 0.1).float()
    logit = kind.endswith("logits")
    weights = {"pos_weight": torch.tensor([10.0, 3.0])} if logit else {"weight": torch.tensor([2.0, 3.0])}
    x = logits if logit else logits.sigmoid()
    record = loss_record(kind, x, target, **weights)
    assert record is not None
    loss, error, reference, *rest = record.values.tolist()
    each = getattr(F, kind)(x, target, reduction="none", **weights).double()
    assert loss == pytest.approx(float(each.mean()), rel=1e-6)
    assert error == pytest.approx(float(each.std()) / 128**0.5, rel=1e-6)
    factor = 1 + target * (weights["pos_weight"] - 1) if logit else weights["weight"].expand_as(target)
    assert reference == pytest.approx(float(factor.double().mean()) * math.log(2), rel=1e-6)
    assert len(rest) == FIXED - 3


def test_probabilities_for_logits() -> None:
    target = torch.tensor([2, 0, 1])
    certain = F.one_hot(target, 5).float()
    assert values("cross_entropy", certain, target)[5] == pytest.approx(float(F.cross_entropy(certain, target)))
    torch.manual_seed(0)
    logits = torch.randn(8, 5)
    for x, told in ((logits.softmax(1), True), (logits.log_softmax(1), False), (logits.sigmoid(), False)):
        assert math.isnan(values("cross_entropy", x, torch.zeros(8, dtype=torch.long))[5]) != told


def test_what_may_have_passed_a_sigmoid() -> None:
    """Against a search for the best outputs from 0 to 1."""
    torch.manual_seed(0)
    x, target = torch.randn(8, 3), torch.rand(8, 3).round()
    target[0] = torch.tensor([0.3, 0.6, 0.9])
    kind = "binary_cross_entropy_with_logits"
    grid = torch.linspace(0, 1, 20_001, dtype=torch.float64)[:, None].expand(-1, 24)
    each = F.binary_cross_entropy_with_logits(grid, target.double().reshape(1, 24).expand_as(grid), reduction="none")
    assert values(kind, x.sigmoid(), target)[5] == pytest.approx(float(each.min(dim=0).values.mean()), rel=1e-6)
    assert math.isnan(values(kind, x, target)[5])
    assert math.isnan(values("binary_cross_entropy", x.sigmoid(), target)[5])


def test_many_classes_are_not_counted() -> None:
    assert len(values("cross_entropy", torch.randn(4, MAX_COUNTED + 1), torch.zeros(4, dtype=torch.long))) == FIXED


@pytest.mark.parametrize(
    ("kind", "options"),
    [("l1_loss", {}), ("smooth_l1_loss", {"beta": 0.5}), ("huber_loss", {"delta": 0.5}), ("mse_loss", {})],
)
def test_other_distances(kind: str, options: dict[str, float]) -> None:
    """Against a search for the best constant of each of the two places."""
    torch.manual_seed(0)
    x, target = torch.randn(33, 2), 3 + torch.randn(33, 2) * torch.tensor([0.5, 2.0])
    record = loss_record(kind, x, target, **options)
    assert record is not None
    loss, _, reference, _, constant, *_ = record.values.tolist()
    function = partial(getattr(F, kind), **options)
    assert loss == pytest.approx(float(function(x.double(), target.double())), rel=1e-6)
    assert reference == pytest.approx(float(function(torch.zeros(33, 2).double(), target.double())), rel=1e-6)
    grid = torch.linspace(-4, 10, 14_001).double()
    best = [min(float(function(c.expand(33), target[:, i].double())) for c in grid) for i in (0, 1)]
    # The median is not quite the best constant of what lies between a squared and an absolute error.
    assert constant * 32 / 33 == pytest.approx(sum(best) / 2, rel=1e-3 if kind in ("l1_loss", "mse_loss") else 3e-2)


def test_log_probabilities() -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(8, 5), torch.randint(5, (8,))
    assert math.isnan(values("nll_loss", logits.log_softmax(1), target)[5])
    assert values("nll_loss", logits, target)[5] == -math.inf
    assert values("nll_loss", logits.log_softmax(1), target)[:5] == pytest.approx(
        values("cross_entropy", logits, target)[:5], rel=1e-5, nan_ok=True
    )


def test_targets_that_give_each_class_a_probability() -> None:
    torch.manual_seed(0)
    logits = 3 * torch.randn(64, 5)
    probs = 0.9 * F.one_hot(torch.randint(5, (64,)), 5) + 0.02
    loss, error, reference, logit_std, *_ = values("cross_entropy", logits, probs)
    losses = -(probs.double() * logits.double().log_softmax(1)).sum(1)
    assert loss == pytest.approx(float(losses.mean()), rel=1e-6)
    assert error == pytest.approx(float(losses.std()) / 8, rel=1e-6)
    assert reference == pytest.approx(math.log(5))
    assert logit_std == pytest.approx(float(logits.double().std(dim=1).mean()), rel=1e-6)
    # A teacher that knows next to nothing leaves nothing to be known.
    assert loss_record("cross_entropy", logits, torch.full((64, 5), 0.2)) is None


@pytest.mark.parametrize("kind", ["binary_cross_entropy", "binary_cross_entropy_with_logits"])
def test_binary_targets_are_counted(kind: str) -> None:
    torch.manual_seed(0)
    target = (torch.rand(64, 3) < torch.tensor([0.1, 0.5, 0.9])).float()
    assert values(kind, torch.rand(64, 3), target)[FIXED:] == [*target.sum(dim=0).tolist(), 64.0]
    assert values(kind, torch.rand(64), target[:, 0])[FIXED:] == [float(target[:, 0].sum()), 64.0]
    assert values(kind, torch.rand(64, 3), target * 0.9)[FIXED:] == []  # shades of grey


@pytest.mark.parametrize("kind", ["mse_loss", "cross_entropy", "binary_cross_entropy_with_logits"])
def test_how_far_examples_differ(kind: str) -> None:
    torch.manual_seed(0)
    x = 5 + torch.randn(64, 3)
    target = torch.randint(3, (64,)) if kind == "cross_entropy" else torch.rand(64, 3)
    differ = x.double().std(dim=0).max() / x.abs().max()
    assert values(kind, x, target)[6] == pytest.approx(float(differ), rel=1e-6)
    assert values(kind, x[:1].expand(64, 3), target)[6] < 1e-6
    assert math.isnan(values(kind, x[:1], target[:1])[6])


def test_a_large_output_is_compared_in_part() -> None:
    x = torch.zeros(300, 100_000)
    x[:, 0] = torch.arange(300)
    assert values("mse_loss", x, x)[6] == pytest.approx(0.5**0.5)  # of the first two examples


def test_the_spread_of_binary_logits() -> None:
    torch.manual_seed(0)
    x, target = 2 * torch.randn(64, 3), torch.rand(64, 3).round()
    spread = float(x.double().std())
    assert values("binary_cross_entropy_with_logits", x, target)[3] == pytest.approx(spread, rel=1e-6)
    assert math.isnan(values("binary_cross_entropy", x.sigmoid(), target)[3])
