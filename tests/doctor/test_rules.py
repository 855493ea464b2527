"""Single rules on made-up histories, each side of its limit."""

from __future__ import annotations

import math

import pytest

from bnlm.doctor import Diagnosis, Facts, Finding, History, Observation, Output
from bnlm.doctor.facts import ParameterFacts


def history(total: float = 1000, **parameters: ParameterFacts) -> History:
    return History(Facts(parameters=parameters), total)


def observation(step: int, **scalars: float) -> Observation:
    tags = {name.replace("__", "/"): value for name, value in scalars.items()}
    return Observation(step, tags, {"a": "tanh", "b": "relu"})


def found(of: History) -> dict[str, Finding]:
    diagnosis = Diagnosis()
    diagnosis.update(of)
    return {finding.rule: finding for finding in diagnosis.findings}


@pytest.mark.parametrize(
    ("loss", "spread", "expected"),
    [
        (2.30, 0.3, {}),
        (2.50, 0.3, {}),
        (2.70, 0.3, {"R01": "warning"}),
        (2.70, 1.2, {"R01": "warning", "R02": "warning"}),
        (3.70, 3.5, {"R01": "critical", "R02": "critical"}),
        (1.70, 4.0, {"R01": "note"}),  # trained before: sure of itself, and right
    ],
)
def test_first_loss(loss: float, spread: float, expected: dict[str, str]) -> None:
    h = history()
    h.add(Observation(0, {}, {}, Output("cross_entropy", math.log(10), loss, 0.01, spread)))
    assert {rule: finding.severity for rule, finding in found(h).items()} == expected


def test_a_start_in_the_middle_is_no_start() -> None:
    h = history()
    h.add(Observation(500, {}, {}, Output("cross_entropy", math.log(10), 5.0, 0.01, 3.0)))
    assert "R01" not in found(h)


@pytest.mark.parametrize(("allowed", "overflows", "critical"), [(0, 1, True), (4, 4, False), (4, 5, True)])
def test_overflows_of_a_scaler(allowed: int, overflows: int, critical: bool) -> None:
    h = history()
    h.overflows_allowed = allowed
    h.add(observation(0, gradient_norm__total=1.0))
    for step in range(1, overflows + 1):
        h.add(observation(step, gradient_norm__total=math.inf))
    assert ("R08" in found(h)) == critical


@pytest.mark.parametrize(
    ("change", "feeds_norm", "suffers", "severity"),
    [
        (-2.5, False, True, None),
        (-1.7, False, False, None),  # small networks that train well reach -1.3
        (-1.7, False, True, "warning"),
        (-0.9, False, False, "critical"),
        (-1.7, True, True, None),
        (-1.2, True, True, "warning"),
    ],
)
def test_updates(change: float, feeds_norm: bool, suffers: bool, severity: str | None) -> None:
    h = history(**{"w": ParameterFacts("w", (9, 8), "hidden", feeds_norm, std=0.3)})
    for step in range(0, 110, 10):
        h.add_losses([3.0 if suffers else 3.0 - 0.02 * step] * 10)
        h.add(observation(step, update_to_data__w=change, gradient_std__w=1.0))
    finding = found(h).get("R09")
    assert (finding and finding.severity) == severity


def test_what_starts_at_zero_may_move_far() -> None:
    h = history(**{"w": ParameterFacts("w", (9, 8), "hidden", std=0.0, zero=True)})
    for step in range(0, 110, 10):
        h.add(observation(step, update_to_data__w=-0.5, gradient_std__w=1.0))
    assert found(h) == {}


@pytest.mark.parametrize(("losses", "rules"), [([2.3] * 250, {"R13"}), ([2.3 - 0.005 * i for i in range(250)], set())])
def test_stuck(losses: list[float], rules: set[str]) -> None:
    h = history()
    h.add_losses(losses)
    h.add(Observation(0, {}, {}, Output("cross_entropy", 2.3, 2.3, 0.1, 0.1)))
    h.add(observation(250))
    assert set(found(h)) == rules


def test_diverging_and_noise() -> None:
    rises = history()
    rises.add_losses([1.0] * 100 + [1 + 0.05 * i for i in range(100)])
    rises.add(observation(200))
    assert "R14" in found(rises)
    small = history()
    small.add_losses([2.0 * 0.95**i for i in range(100)] + [0.02, 0.03] * 60)
    small.add(observation(200))
    assert "R14" not in found(small)


def test_three_bad_batches() -> None:
    for bad, expected in ((2, False), (3, True)):
        h = history()
        for i in range(300):
            h.add_losses([20.0 if i % 90 == 50 and i // 90 < bad else 1.0])
        h.add(observation(300))
        assert ("R07" in found(h)) == expected


def test_a_finding_becomes_more_severe_but_keeps_its_step() -> None:
    h, diagnosis = history(), Diagnosis()
    for step in range(0, 200, 10):
        h.add(observation(step, saturation__a=0.6))
    assert [f.severity for f in diagnosis.update(h)] == ["warning"]
    first = diagnosis.findings[0].step
    for step in range(200, 500, 10):
        h.add(observation(step, saturation__a=0.95))
    assert [f.severity for f in diagnosis.update(h)] == ["critical"]
    assert diagnosis.findings[0].step == first
    assert diagnosis.update(h) == []
