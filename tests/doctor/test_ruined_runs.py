"""R09 of runs that end in nan or in dead layers before a window of observed steps is full."""

from __future__ import annotations

import math

import pytest

from bnlm.doctor import Diagnosis, Facts, Finding, History, Observation
from bnlm.doctor.facts import ParameterFacts


def run(losses: list[float], updates: list[float], dead: float = 0.0, std: float = 0.3) -> list[Finding]:
    """Return what is found of a run observed at every 10th step."""
    h = History(Facts({"w": ParameterFacts("w", (9, 8), "hidden", std=std)}), 1000)
    diagnosis = Diagnosis()
    for index, update in enumerate(updates):
        h.add_losses([losses[:1], losses[1:]][index] if index < 2 else [losses[-1]] * 10)
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
        ([2.3, 2.8, 9.0, 5.0, 3.0], [-0.4, -1.5], []),  # it came back
    ],
)
def test_nan(losses: list[float], updates: list[float], expected: list[str]) -> None:
    assert [finding.rule for finding in run(losses, updates)] == expected


@pytest.mark.parametrize(("update", "expected"), [(-1.1, ["R09", "R04"]), (-1.4, ["R04"])])
def test_dead_layers(update: float, expected: list[str]) -> None:
    found = run([2.3] * 10, [update] * 3 + [-math.inf] * 9, dead=1.0)
    assert [finding.rule for finding in found if finding.rule in ("R04", "R09")] == expected
    if "R09" in expected:
        assert found[0].step == 0 or found[0].step == 10
        assert found[1].caused_by == "R09"


def test_what_starts_at_zero_moves_far_rightly() -> None:
    assert [finding.rule for finding in run([2.3, 9.0, math.nan], [-0.1, math.nan], std=0.0)] == ["R08"]
