"""R10 and R13: a loss that stands still, whatever its scale, its schedule and its kind."""

from __future__ import annotations

import math
import random

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bnlm.doctor import Diagnosis, Facts, Finding, History, Observation, Output
from bnlm.doctor.facts import ParameterFacts

WEIGHT = {"w": ParameterFacts("w", (9, 8), "hidden", std=0.3)}


def found(of: History) -> dict[str, Finding]:
    diagnosis = Diagnosis()
    diagnosis.update(of)
    return {finding.rule: finding for finding in diagnosis.findings}


def squares(level: float, first: float, batches: int = 32, steps: int = 450, mean_of_all: float = 5.0) -> History:
    """Return a run that predicts a constant, whose loss is so much of that of the best constant."""
    draw = random.Random(0)
    h = History(Facts(), 1000)
    for step in range(steps):
        targets = [draw.gauss(mean_of_all, 1) for _ in range(batches)]
        mean = sum(targets) / batches
        constant = sum((y - mean) ** 2 for y in targets) / (batches - 1)
        loss = first if step < 4 else level * sum((y - mean_of_all) ** 2 for y in targets) / batches
        h.losses.add([loss])
        if step % 10 == 0:
            reference = sum(y * y for y in targets) / batches
            h.add(Observation(step, {}, {}, Output("regression", reference, loss, 0.2, math.nan, constant)))
    return h


@pytest.mark.parametrize(("mean", "change"), [(5.0, "Bring the targets"), (0.0, "Make the first outputs small")])
def test_a_regression_far_above_a_constant_is_told_what_is_off(mean: float, change: str) -> None:
    assert found(squares(9.0, 9.0, mean_of_all=mean))["R13"].suggestion.startswith(change)


@pytest.mark.parametrize(("ends", "expected"), [(True, False), (False, True)])
def test_steps_are_small_at_the_end_of_a_schedule(ends: bool, expected: bool) -> None:
    h = History(Facts(WEIGHT), 300)
    for step in range(0, 300, 10):
        h.losses.add([2.3] * 10)
        h.add(Observation(step, {"update_to_data": {"w": -3.5}}, {}, None, 0.05 if ends and step >= 270 else 1.0))
    assert ("R10" in found(h)) == expected


@pytest.mark.parametrize(
    ("level", "first", "expected"),
    [
        (1.0, 27.0, True),  # found the mean, and nothing else: far below its start
        (1.1, 27.0, True),
        (0.9, 27.0, False),
        (5.0, 27.0, False),  # worse than a constant, and far below its start
        (5.0, 5.2, True),  # below the mean square of the targets by itself, worse than a constant, and no better since
        (27.0, 27.0, True),
    ],
)
def test_squared_errors_are_held_against_a_constant_on_the_same_batches(
    level: float, first: float, expected: bool
) -> None:
    finding = found(squares(level, first)).get("R13")
    assert (finding is not None) == expected
    assert finding is None or finding.severity == "critical"
    assert finding is None or ("targets to mean 0" in finding.suggestion) == (level > 1.3)


@pytest.mark.parametrize(
    ("start", "slope", "steps", "severity"),
    [
        (27.0, 0.02, 890, None),  # there is time left
        (27.0, 0.02, 950, "warning"),
        (27.0, 0.027, 950, None),  # near the mean at last
    ],
)
def test_targets_that_are_too_far(start: float, slope: float, steps: int, severity: str | None) -> None:
    """The loss falls all along, and is many times that of a constant still."""
    h = History(Facts(), 1000)
    for step in range(0, steps, 10):
        losses = [start - slope * (step + i) for i in range(10)]
        h.losses.add(losses)
        h.add(Observation(step, {}, {}, Output("regression", start, losses[0], 0.2, math.nan, 1.0)))
    finding = found(h).get("R13")
    assert (finding and finding.severity) == severity
    assert finding is None or "targets to mean 0" in finding.suggestion


def test_a_network_that_is_fitted_later_is_fitted() -> None:
    h = squares(1.0, 27.0)
    h.losses.add([0.5] * 150)
    assert "R13" not in found(h)


def test_what_is_learned_late_is_no_standstill() -> None:
    """A weak signal: at a constant for 200 steps, 8 % below it in the batches after them."""
    h = squares(1.0, 27.0, steps=200)
    for step in range(200, 460, 10):
        h.losses.add([0.92] * 10)
        h.add(Observation(step, {}, {}, Output("regression", 26.0, 0.92, 0.2, math.nan, 1.0)))
    assert "R13" not in found(h)


@pytest.mark.parametrize("weight", [1e-5, 1.0, 32.0])
def test_a_loss_may_be_weighted_or_a_sum(weight: float) -> None:
    stuck, learns = History(Facts(WEIGHT), 1000), History(Facts(WEIGHT), 1000)
    for h, fall in ((stuck, 0.0), (learns, 4e-3)):
        for step in range(450):
            h.losses.add([weight * (2.3 - fall * min(step, 200))])
            if step % 10 == 0:
                output = Output("cross_entropy", 2.3, 2.3 - fall * min(step, 200), 0.02, 0.1)
                h.add(Observation(step, {"update_to_data": {"w": -6.0}, "gradient_std": {"w": 1.0}}, {}, output))
    assert stuck.reference.loss == pytest.approx(2.3 * weight)
    assert {"R10", "R13"} <= set(found(stuck))
    assert not {"R10", "R13"} & set(found(learns))  # the sum of its losses is above ln 10 all along


def scheduled(share: list[float], total: float = math.inf) -> set[str]:
    h = History(Facts(WEIGHT), total)
    for step, lr_share in enumerate(share):
        h.losses.add([2.3])
        if step % 10 == 0:
            output = Output("cross_entropy", 2.3, 2.3, 0.02, 0.1) if step < 200 else None
            statistics = {"update_to_data": {"w": -6.0}, "gradient_std": {"w": 1.0}}
            h.add(Observation(step, statistics, {}, output, lr_share))
    return set(found(h)) & {"R10", "R13"}


def test_a_warm_up_is_waited_for_but_not_for_ever() -> None:
    rising = [step / 10_000 for step in range(500)]
    assert scheduled(rising) == set()
    assert scheduled(rising, total=500) == {"R10", "R13"}  # never warm within this run
    assert scheduled([step / 1_000_000 for step in range(2_100)]) == {"R10", "R13"}


def test_a_rate_that_has_fallen_to_nothing_is_no_excuse() -> None:
    assert scheduled([0.8**step for step in range(500)]) == {"R10", "R13"}


def test_a_loss_far_above_its_start_asks_for_no_larger_steps() -> None:
    h = History(Facts(WEIGHT), 1000)
    for step in range(0, 260, 10):
        h.losses.add([2.3 if step == 0 else 50.0] * 10)
        h.add(Observation(step, {"update_to_data": {"w": -6.0}, "gradient_std": {"w": 1.0}}, {}))
    assert "R10" not in found(h)


def test_what_does_not_move_at_all_is_said_in_words() -> None:
    h = History(Facts(WEIGHT), 1000)
    for step in range(0, 260, 10):
        h.losses.add([2.3] * 10)
        h.add(Observation(step, {"update_to_data": {"w": -math.inf}, "gradient_std": {"w": 1.0}}, {}))
    assert "do not change at all" in found(h)["R10"].message


@pytest.mark.parametrize("broadcast", [False, True])
def test_the_suggestion_names_shapes_that_do_not_fit(broadcast: bool) -> None:
    h = History(Facts(), 1000)
    h.losses.add([1.0] * 450)
    for step in range(0, 200, 10):
        h.add(Observation(step, {}, {}, Output("regression", 1.0, 1.0, 0.1, math.nan, 1.0, broadcast)))
    assert ("the same shape" in found(h)["R13"].suggestion) == broadcast


def test_the_suggestion_names_inputs_of_zeros() -> None:
    h = History(Facts({"a.weight": ParameterFacts("a.weight", (9, 8), "hidden", std=0.3)}), 1000)
    h.losses.add([2.3] * 450)
    stds = {"a.weight": 0.0, "a.bias": 0.1}
    h.add(Observation(0, {}, {}, Output("cross_entropy", 2.3, 2.3, 0.1, 0.1)))
    h.add(Observation(400, {"gradient_std": stds}, {}))
    assert "nothing but zeros comes to a.weight" in found(h)["R13"].suggestion


def test_the_wrong_broadcast_of_a_real_network() -> None:
    from lightning.pytorch import LightningModule, Trainer
    from torch.utils.data import DataLoader, TensorDataset

    from bnlm.callbacks import Doctor

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 1))

        def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
            return F.mse_loss(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), 3e-3)

    torch.manual_seed(0)
    x = torch.randn(2000, 8)
    doctor = Doctor(table=False)
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(accelerator="cpu", max_steps=450, max_epochs=-1, callbacks=[doctor], **options)
    with pytest.warns(UserWarning, match="different to the input size"):
        trainer.fit(Module(), DataLoader(TensorDataset(x, x[:, 0] + 3), 32, shuffle=True))
    assert [f.rule for f in doctor.findings if f.severity == "critical"] == ["R13"]
    assert "the same shape" in doctor.findings[0].suggestion


def letters(level: float, per_batch: int = 32, more: float = 0.0, rare: bool = False) -> tuple[History, float]:
    """Return a run whose loss is soon so much of the entropy of its four unequal classes, and that entropy."""
    draw = random.Random(0)
    frequencies = [0.97, 0.01, 0.01, 0.01] if rare else [0.6, 0.2, 0.1, 0.1]
    entropy = -sum(p * math.log(p) for p in frequencies)
    h = History(Facts(), 1000)
    for step in range(450):
        h.losses.add([1.4 + more if step < 4 else level * entropy + draw.gauss(0, 0.05)])
        if step % 10 == 0:
            targets = draw.choices(range(4), frequencies, k=per_batch)
            counts = [float(targets.count(label)) for label in range(4)]
            loss = 1.4 if step < 4 else level * entropy
            h.add(Observation(step, {}, {}, Output("cross_entropy", math.log(4), loss, 0.1, 0.3, counts=counts)))
    return h, entropy


@pytest.mark.parametrize(
    ("level", "settings", "expected"),
    [
        (1.0, {}, True),
        (1.1, {}, True),
        (0.9, {}, False),
        (1.0, {"per_batch": 1}, False),  # too few targets to know
        (1.0, {"more": 0.3}, False),  # the loss holds another term
        (1.0, {"rare": True}, False),
    ],
)
def test_a_loss_that_knows_the_frequencies_alone(level: float, settings: dict[str, float], expected: bool) -> None:
    h, entropy = letters(level, **settings)  # type: ignore[arg-type]
    finding = found(h).get("R13")
    assert (finding is not None) == expected
    if finding is not None:
        assert finding.severity == "critical"
        assert finding.threshold == pytest.approx(0.98 * entropy, rel=0.03)
        assert "how frequent each class is" in finding.message


@pytest.mark.parametrize(
    ("floors", "expected"),
    [([1.0, 1.0, 1.0, 1.0], True), ([1.0, 1.0, math.nan, 1.0], False), ([1.0, 1.0], False)],
)
def test_probabilities_given_for_logits(floors: list[float], expected: bool) -> None:
    """Though the loss falls, down to what it cannot fall below."""
    diagnosis, h, given = Diagnosis(), History(Facts(), 1000), iter(floors)
    for step in range(300):
        h.losses.add([1.8 if step < 100 else 1.1])
        if step % 10 == 0:
            floor = next(given, None)
            output = None if floor is None else Output("cross_entropy", 1.8, 1.8, 0.01, 0.1, floor=floor)
            h.add(Observation(step, {}, {}, output))
            diagnosis.update(h)
    findings = [finding for finding in diagnosis.findings if finding.rule == "R13"]
    assert [(f.severity, f.step, f.threshold) for f in findings] == [("critical", 0, 1.0)] * expected


@pytest.mark.parametrize(("last", "expected"), [("sigmoid", True), ("tanh", False)])
def test_a_sigmoid_before_the_loss_that_has_one(last: str, expected: bool) -> None:
    """Logits of a fresh network may all lie between 0 and 1 too."""
    diagnosis, h = Diagnosis(), History(Facts(), 1000)
    for step in range(0, 120, 10):
        h.losses.add([0.7])
        output = Output("binary_cross_entropy", 0.69, 0.7, 0.01, math.nan, floor=0.5)
        h.add(Observation(step, {}, {"a": "sigmoid", "b": last}, output))
        diagnosis.update(h)
    findings = [finding for finding in diagnosis.findings if finding.rule == "R13"]
    assert [(f.severity, f.step, f.threshold) for f in findings] == [("critical", 0, 0.5)] * expected
    assert all("binary_cross_entropy_with_logits" in f.message for f in findings)


@pytest.mark.parametrize(("gradient", "told"), [(1.0, True), (0.0, False)])
def test_steps_that_change_nothing(gradient: float, told: bool) -> None:
    h = History(Facts(WEIGHT), 1000)
    for step in range(200):
        h.losses.add([2.3])
        if step % 10 == 0:
            statistics = {"update_to_data": {"w": -math.inf}, "gradient_std": {"w": gradient}}
            h.add(Observation(step, statistics, {}, Output("cross_entropy", 2.3, 2.3, 0.1, 0.1)))
    finding = found(h)["R10"]
    assert finding.severity == "critical"
    assert ("optimizer.step()" in finding.suggestion) == told


@pytest.mark.parametrize(
    ("update", "top", "expected"), [(-1.4, 1.85, "warning"), (-2.5, 1.85, None), (-1.4, 1.5, "note")]
)
def test_large_steps_are_blamed_where_the_loss_rises_again(update: float, top: float, expected: str | None) -> None:
    h = History(Facts(WEIGHT), 1000)
    for step in range(160):
        h.losses.add([3.3 if step < 10 else 1.4 if step < 60 else top])
        if step % 10 == 0:
            h.add(Observation(step, {"update_to_data": {"w": update}}, {}, Output("cross_entropy", 3.3, 3.3, 0.1, 0.1)))
    assert h.losses.steps_above == 0  # it is too little of a rise for R14
    finding = found(h).get("R09")
    assert (finding and finding.severity) == expected


@pytest.mark.parametrize(
    ("update", "end", "steps", "share", "bend", "expected"),
    [
        (-3.9, 1.7, 950, 1.0, 1, True),
        (-3.6, 1.2, 950, 1.0, 1, True),
        (-3.4, 1.2, 950, 1.0, 1, False),  # slow, and no harm is done
        (-3.9, 1.7, 850, 1.0, 1, False),  # there is time left
        (-3.1, 1.7, 950, 1.0, 1, False),
        (-3.9, 0.5, 950, 1.0, 1, False),  # most of its way is behind it
        (-3.9, 1.2, 950, 1.0, 3, True),
        (-3.9, 1.7, 950, 0.05, 1, False),  # a schedule that ends
        (-3.6, 1.7, 950, 0.2, 1, False),  # at the highest rate it was -2.9
    ],
)
def test_a_loss_that_falls_slowly_by_small_steps(
    update: float, end: float, steps: int, share: float, bend: int, expected: bool
) -> None:
    h = History(Facts(WEIGHT), 1000)
    for step in range(0, steps, 10):
        left = [1 - (step + i) / steps for i in range(10)]
        h.losses.add([end + (2.3 - end) * x**bend for x in left])
        statistics = {"update_to_data": {"w": update}, "gradient_std": {"w": 1.0}}
        h.add(Observation(step, statistics, {}, Output("cross_entropy", 2.3, 2.3, 0.02, 0.1), share))
    finding = found(h).get("R10")
    assert (finding and finding.severity) == ("warning" if expected else None)


@pytest.mark.parametrize(("steps", "expected"), [(200, False), (260, True)])
def test_small_steps_that_are_not_tiny_are_given_more_time(steps: int, expected: bool) -> None:
    h = History(Facts(WEIGHT), 1000)
    for step in range(0, steps, 10):
        h.losses.add([2.3] * 10)
        h.add(Observation(step, {"update_to_data": {"w": -3.7}}, {}, Output("cross_entropy", 2.3, 2.3, 0.02, 0.1)))
    assert ("R10" in found(h)) == expected


def test_what_comes_to_nll_loss_is_no_log_probability() -> None:
    diagnosis, h = Diagnosis(), History(Facts(), 1000)
    for step in range(0, 50, 10):
        h.losses.add([0.7 - step])
        h.add(Observation(step, {}, {}, Output("cross_entropy", 1.8, 0.7 - step, 0.01, 0.1, floor=-math.inf)))
        diagnosis.update(h)
    findings = [finding for finding in diagnosis.findings if finding.rule == "R13"]
    assert [(f.severity, f.step) for f in findings] == [("critical", 0)]
    assert "log_softmax" in findings[0].suggestion


def test_embeddings_alone_are_judged_too() -> None:
    h = History(Facts({"w": ParameterFacts("w", (9, 8), "embedding", std=0.3)}), 1000)
    for step in range(0, 260, 10):
        h.losses.add([2.3] * 10)
        h.add(Observation(step, {"update_to_data": {"w": -5.5}, "gradient_std": {"w": 1.0}}, {}))
    assert found(h)["R10"].severity == "critical"


@pytest.mark.parametrize(
    ("kind", "floor", "severity", "then"),
    [
        ("regression", 0.5, "critical", "to its range"),
        ("regression", 0.1, "warning", "to its range"),
        ("regression", 0.02, None, ""),  # a little noise about the ends of a range
        ("cross_entropy", 1.2, "critical", "it takes logits"),
        ("binary_cross_entropy", 0.31, "critical", "it takes logits"),
        ("binary_cross_entropy", 0.0, None, ""),
    ],
)
def test_targets_out_of_reach(kind: str, floor: float, severity: str | None, then: str) -> None:
    """Found at the first step; and named as the cause of what comes of it."""
    h = History(Facts(WEIGHT), 1000)
    reference = {"cross_entropy": 2.0, "binary_cross_entropy": 0.69}.get(kind, 1.1)
    constant = 1.0 if kind == "regression" else math.nan
    h.losses.add([reference])
    output = Output(kind, reference, reference, 0.1, math.nan, constant, floor=floor, activation="tanh")
    h.add(Observation(0, {}, {"act": "tanh"}, output))
    finding = found(h).get("R13")
    assert (finding.severity if finding else None) == severity
    if finding:
        assert finding.step == 0
        assert "out of tanh" in finding.message
        assert finding.suggestion.startswith("Remove the tanh")
        assert then in finding.suggestion


@pytest.mark.parametrize(
    ("validation", "train", "expected"),
    [
        ([1.5, 0.9, 0.55, 0.55, 0.55, 0.551], 0.01, "no longer falls"),
        ([1.5, 0.9, 0.6, 0.55, 0.54, 0.5], 0.01, "by heart"),  # it falls still
        ([1.5, 0.9, 0.6, 0.55, 0.54, 0.5], 0.2, None),
        ([1.5, 0.9, 0.55, 0.55, 0.55, 0.551], 0.08, None),
        ([1.5, 0.9, 0.85, 0.9, 0.85, 0.851], 0.2, "by heart"),  # so far apart that a quarter is enough
        ([1.5, 0.5, 0.15, 0.15, 0.15, 0.151], 0.01, None),  # there is not much left to be learned
        ([1.81, 1.8, 1.82, 1.84], 1.7, "no better than knowing nothing"),
        ([1.81, 1.8, 1.82, 1.84], 1.78, None),
        ([1.81, 1.8, 1.8, 1.8], 1.7, None),  # what is learned may come to it yet
        ([1.84, 1.7, 1.82, 1.84], 1.6, None),  # it was better once
        ([0.9, 0.49, 0.5, 0.52, 0.55], 0.2, "has risen from 0.49 to 0.55"),  # each time
        ([0.9, 0.49, 0.52, 0.5, 0.55], 0.2, None),
        ([0.9, 0.49, 0.5, 0.52, 0.55], 0.3, "has risen from 0.49 to 0.55"),
        ([0.9, 0.49, 0.5, 0.52, 0.55], 0.45, None),
        ([0.9, 0.1, 0.11, 0.13, 0.15], 0.05, None),  # near zero it differs by factors
        ([0.9, 0.49, 0.55, 0.54, 0.54], 0.2, "has risen"),
    ],
)
def test_a_validation_loss_that_does_not_follow(validation: list[float], train: float, expected: str | None) -> None:
    h = History(Facts(WEIGHT), 1000)
    h.losses.add([1.8] * 10)
    h.add(Observation(0, {}, {}, Output("cross_entropy", 1.8, 1.8, 0.02, 0.1)))
    h.validations += [(loss, train) for loss in validation]
    finding = found(h).get("R15")
    assert (finding is not None) == (expected is not None)
    assert finding is None or (expected or "") in finding.message
    assert finding is None or (finding.severity == "note") == (expected == "by heart" and validation[-1] == 0.5)


@pytest.mark.parametrize(("train", "expected"), [(0.94, False), (0.85, True)])
def test_targets_of_another_set_spread_more(train: float, expected: bool) -> None:
    h = History(Facts(WEIGHT), 1000)
    h.losses.add([1.0] * 10)
    h.add(Observation(0, {}, {}, Output("regression", 1.0, 1.0, 0.02, math.nan, 1.0)))
    h.validations += [(loss, train) for loss in (1.01, 1.0, 1.01, 1.03)]
    assert ("R15" in found(h)) == expected


def test_a_set_of_other_targets_where_nothing_is_learned() -> None:
    h = History(Facts(WEIGHT), 1000)
    h.losses.add([1.0] * 10)
    h.add(Observation(0, {}, {}, Output("regression", 1.0, 1.0, 0.02, math.nan, 1.0)))
    h.validations += [(loss, 0.98) for loss in (1.6, 1.6, 1.59, 1.6)]
    assert "R15" not in found(h)


@pytest.mark.parametrize(("clip", "rescales", "told"), [(1e-3, False, True), (1e-3, True, False), (1.0, False, False)])
def test_clipping_that_leaves_next_to_nothing(clip: float, rescales: bool, told: bool) -> None:
    """Adam makes up for it."""
    h = History(Facts(WEIGHT, rescales=rescales), 1000)
    h.clip = clip
    for step in range(0, 200, 10):
        h.losses.add([2.3] * 10)
        statistics = {"update_to_data": {"w": -5.5}, "gradient_std": {"w": 1.0}, "gradient_norm": {"total": 2.0}}
        h.add(Observation(step, statistics, {}, Output("cross_entropy", 2.3, 2.3, 0.1, 0.1)))
    findings = found(h)
    assert (findings["R10"].caused_by == "R07") == told
    advised = findings["R07"].suggestion if "R07" in findings else ""
    assert advised.startswith("Raise trainer.gradient_clip_val=0.001 to 1.0") == (clip < 1)


@pytest.mark.parametrize(
    ("clip", "end", "update", "rescales", "expected"),
    [
        (0.01, 1.5, -3.3, False, True),
        (0.01, 0.3, -3.3, False, False),
        (0.01, 1.5, -2.5, False, False),  # a rate that makes up for it
        (0.01, 1.5, -3.3, True, False),
        (0.5, 1.5, -3.3, False, False),
    ],
)
def test_a_loss_that_falls_though_clipping_leaves_little(
    clip: float, end: float, update: float, rescales: bool, expected: bool
) -> None:
    h = History(Facts(WEIGHT, rescales=rescales), 300)
    h.clip = clip
    for step in range(0, 300, 10):
        h.losses.add([2.3 + (end - 2.3) * (step + i) / 300 for i in range(10)])
        statistics = {"update_to_data": {"w": update}, "gradient_std": {"w": 1.0}, "gradient_norm": {"total": 1.2}}
        h.add(Observation(step, statistics, {}, Output("cross_entropy", 2.3, 2.3, 0.1, 0.1)))
    findings = found(h)
    assert ("R10" in findings and findings["R10"].caused_by == "R07") == expected


@pytest.mark.parametrize(("best", "told"), [(2.3, True), (1.5, False)])
def test_a_loss_that_has_never_fallen_may_have_the_wrong_sign(best: float, told: bool) -> None:
    h = History(Facts(WEIGHT), 1000)
    h.losses.add([2.3] * 5 + [best] * 100 + [5.0] * 100)
    h.add(Observation(200, {}, {}, Output("cross_entropy", 2.3, 2.3, 0.1, 0.1)))
    assert ("sign" in found(h)["R14"].suggestion) == told


@pytest.mark.parametrize(
    ("std", "outputs", "end", "severity"),
    [
        (0.01, 0.001, 2.2, "warning"),
        (0.2, 0.001, 2.2, None),  # of a usual size
        (0.01, 0.5, 2.2, None),  # a normalization brings them back
        (0.01, 0.001, 1.0, None),  # and no harm comes of it
    ],
)
def test_weights_that_start_too_small(std: float, outputs: float, end: float, severity: str | None) -> None:
    """Of one or two layers too, of which no fading can be told."""
    h = History(Facts({"w": ParameterFacts("w", (9, 8), "hidden", std=std)}), 1000)
    for step in range(0, 300, 10):
        h.losses.add([2.3 if step < 20 else end] * 10)
        h.add(Observation(step, {"activation_std": {"a": outputs}}, {"a": "tanh"}))
    finding = found(h).get("R05")
    assert (finding and finding.severity) == severity
    assert finding is None or "std 0.01 at w" in finding.message


@pytest.mark.parametrize(
    ("kind", "loss", "before", "std", "told"),
    [
        ("cross_entropy", 9.0, 50.0, 0.3, True),
        ("cross_entropy", 9.0, 50.0, 5.0, False),  # it is the weights
        ("cross_entropy", 9.0, 1.0, 0.3, False),
        ("regression", 99.0, 50.0, 0.3, True),
    ],
)
def test_large_inputs_are_told_from_large_weights(
    kind: str, loss: float, before: float, std: float, told: bool
) -> None:
    h = History(Facts({"w": ParameterFacts("w", (9, 8), "hidden", std=std)}), 1000)
    h.losses.add([loss])
    h.add(Observation(0, {"preactivation_std": {"a": before}}, {"a": "tanh"}, Output(kind, 2.0, loss, 0.1, 5.0, 1.0)))
    findings = found(h)
    assert findings["R01"].severity == "critical"
    assert all(findings[r].suggestion.startswith("Bring the inputs") == told for r in ("R01", "R02") if r in findings)


@pytest.mark.parametrize(("ones", "loss", "expected"), [(16.0, 0.56, True), (16.0, 0.5, False), (32.0, 0.56, False)])
def test_binary_losses_are_held_against_how_frequent_ones_are(ones: float, loss: float, expected: bool) -> None:
    """Of a quarter of ones knowing that alone costs 0.562."""
    h = History(Facts(WEIGHT), 1000)
    for step in range(0, 450, 10):
        h.losses.add([0.7 if step == 0 else loss] * 10)
        output = Output("binary_cross_entropy", math.log(2), 0.7, 0.1, math.nan, counts=[ones, 64.0])
        h.add(Observation(step, {}, {}, output))
    finding = found(h).get("R13")
    assert (finding is not None) == expected
    assert finding is None or "how frequent" in finding.message
