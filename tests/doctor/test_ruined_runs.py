"""R09 of runs that end in nan or in dead layers before a window of observed steps is full."""

from __future__ import annotations

import math

import pytest

from bnlm.doctor import Diagnosis, Facts, Finding, History, Observation, Output
from bnlm.doctor.facts import ParameterFacts


def run(losses: list[float], updates: list[float], dead: float = 0.0, std: float = 0.3) -> list[Finding]:
    """Return what is found of a run observed at every 10th step."""
    h = History(Facts({"w": ParameterFacts("w", (9, 8), "hidden", std=std)}), 1000)
    diagnosis = Diagnosis()
    for index, update in enumerate(updates):
        h.losses.add([losses[:1], losses[1:]][index] if index < 2 else [losses[-1]] * 10)
        share = 0.0 if index == 0 else dead
        statistics = {"update_to_data": {"w": update}, "dead_units": {"a": share}, "gradient_std": {"w": 1.0}}
        h.add(Observation(10 * index, statistics, {"a": "relu"}))
        diagnosis.update(h)
    return diagnosis.findings


@pytest.mark.parametrize(
    ("losses", "updates", "expected"),
    [
        ([2.3, 2.8, 9.0, 1e9, math.nan], [-0.4, math.nan], ["R09", "R08"]),
        ([2.3, 2.8, 9.0, 1e9, math.nan], [-0.7, math.nan], ["R08"]),  # as AdamW's first step
        ([2.3, 2.8, 9.0, 1e9, math.nan], [-0.7, -1.0, math.nan], ["R09", "R08"]),
        ([2.3, 2.4, 2.2, 2.3, math.nan], [-0.4, -0.9, math.nan], ["R08"]),  # out of the blue: a logarithm of zero
        ([2.3, 9.0, 30.0, 1e3, 1e9, math.nan], [-1.5, math.nan], ["R09", "R08"]),  # worse with each step
        ([2.3, 9.0, 30.0, 1e3, 1e9, math.nan], [-2.5, math.nan], ["R08"]),
        ([2.3, 2.8, 9.0, 5.0, 3.0], [-0.4, -1.5], []),  # it came back
    ],
)
def test_nan(losses: list[float], updates: list[float], expected: list[str]) -> None:
    assert [finding.rule for finding in run(losses, updates)] == expected


@pytest.mark.parametrize(("update", "expected"), [(-1.1, ["R09", "R04"]), (-1.4, ["R09", "R04"]), (-2.0, ["R04"])])
def test_dead_layers(update: float, expected: list[str]) -> None:
    found = run([2.3] * 10, [update] * 3 + [-math.inf] * 9, dead=1.0)
    assert [finding.rule for finding in found if finding.rule in ("R04", "R09")] == expected
    if "R09" in expected:
        assert found[0].severity == ("critical" if update > -1.2 else "warning")
        assert found[0].step == 0 or found[0].step == 10
        assert found[1].caused_by == "R09"


def test_what_starts_at_zero_moves_far_rightly() -> None:
    assert [finding.rule for finding in run([2.3, 9.0, math.nan], [-0.1, math.nan], std=0.0)] == ["R08"]


@pytest.mark.parametrize(
    ("first", "worst", "left", "expected"),
    [
        (-0.6, 4.4, 1.6, True),  # before a normalization: the weights have grown, and updates are usual by now
        (-1.5, 4.4, 1.6, False),
        (-0.6, 2.5, 1.6, True),  # a little, as the typical weight leapt
        (-0.6, 1.85, 1.6, False),  # it did not rise
        (-0.8, 2.5, 1.6, False),
        (-0.6, 4.4, 1.0, False),  # it has learned since
    ],
)
def test_first_steps_that_have_spoiled_the_start(first: float, worst: float, left: float, expected: bool) -> None:
    h = History(Facts({"w": ParameterFacts("w", (9, 8), "hidden", std=0.3, feeds_norm=True)}), 1000)
    for step in range(0, 300, 10):
        h.losses.add([1.8, worst, *[1.8] * 8] if step == 0 else [left] * 10)
        statistics = {"update_to_data": {"w": first if step == 0 else -2.3}, "gradient_std": {"w": 1.0}}
        h.add(Observation(step, statistics, {}, Output("cross_entropy", 1.8, 1.8, 0.01, 0.1)))
    diagnosis = Diagnosis()
    diagnosis.update(h)
    assert [f.severity for f in diagnosis.findings if f.rule == "R09"] == ["warning"] * expected


@pytest.mark.parametrize(
    ("first", "second", "left", "later", "severity"),
    [
        (0.2, 1.8, 0.5, -2.3, "warning"),
        (0.2, 1.8, 1.7, -2.3, "critical"),
        (-0.1, 1.8, 1.2, -2.3, "note"),  # no weight moved by more than its size
        (-0.1, 3.0, 1.2, -2.3, "critical"),  # the loss rose
        (-0.1, 3.0, 0.5, -2.3, "warning"),
        (-0.1, 1.8, 1.2, -0.5, "critical"),  # so do all others
    ],
)
def test_a_first_step_that_did_no_harm(first: float, second: float, left: float, later: float, severity: str) -> None:
    h, diagnosis = History(Facts({"w": ParameterFacts("w", (9, 8), "hidden", std=0.3)}), 1000), Diagnosis()
    for step in range(0, 300, 10):
        h.losses.add([1.8, *[second] * 9] if step == 0 else [left] * 10)
        statistics = {"update_to_data": {"w": later if step else first}, "gradient_std": {"w": 1.0}}
        h.add(Observation(step, statistics, {}, Output("cross_entropy", 1.8, 1.8, 0.01, 0.1)))
        diagnosis.update(h)
    found = {finding.rule: finding for finding in diagnosis.findings}["R09"]
    assert (found.severity, found.step) == (severity, 0)
    assert (f"the loss has fallen to {left}" in found.message) == (severity != "critical")


def test_what_is_nan_does_not_stand_still() -> None:
    h = History(Facts(), 1000)
    for step in range(0, 500, 10):
        h.losses.add([2.3 if step < 450 else math.nan] * 10)
        h.add(Observation(step, {}, {}, Output("cross_entropy", 2.3, 2.3, 0.01, 0.1)))
    diagnosis = Diagnosis()
    diagnosis.update(h)
    assert [finding.rule for finding in diagnosis.findings] == ["R08"]
