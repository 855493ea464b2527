"""R09 beside a loss that rises, and which of the two is to blame."""

import math
import random
from collections.abc import Callable

import pytest

from bnlm.doctor import Diagnosis, Facts, Finding, History, Observation, Output
from bnlm.doctor.facts import ParameterFacts
from bnlm.doctor.loss_rules import DIFFERENT, SCHEDULE, SIGN
from bnlm.doctor.spike_rules import BATCHES

CHANCE = math.log(10)
WEIGHT = {"w": ParameterFacts("w", (9, 100), "hidden", std=0.1, group=0)}


def found(of: History) -> dict[str, Finding]:
    diagnosis = Diagnosis()
    diagnosis.update(of)
    return {finding.rule: finding for finding in diagnosis.findings}


def leaping(update: float, at: int = 200, rises: dict[int, float] | None = None, std: float = 0.1) -> History:
    """Return a run whose loss leaps from 0.1 to 1.5 at a step, and stays there, and whose weight moves so far."""
    h = History(Facts({"w": ParameterFacts("w", (9, 100), "hidden", std=std, group=0)}), 400)
    for step in range(at + 100):
        h.losses.add([1.5 + 0.01 * (step % 2) if step >= at else max(CHANCE - 0.1 * step, 0.1)])
        if step % 10 == 0:
            statistics = {"update_to_data": {"w": update}, "gradient_std": {"w": 1.0}}
            rise = (rises or {}).get(step, 1.0)
            h.add(Observation(step, statistics, {}, Output("cross_entropy", CHANCE, CHANCE, 0.01, 0.3), lr_rise=rise))
    return h


@pytest.mark.parametrize(
    ("update", "std", "first"),
    [(-2.8, 0.1, "R14"), (-1.5, 0.1, "R09"), (-1.5, 0.02, "R14")],  # beside small weights usual steps look large
)
def test_what_leaps_by_steps_that_were_too_large_before_is_of_these(update: float, std: float, first: str) -> None:
    findings = found(leaping(update, std=std))
    assert next(iter(findings)) == first
    assert findings["R14"].suggestion.startswith(DIFFERENT) == (first == "R14")
    assert findings["R14"].caused_by == ("R09" if first == "R09" else None)


@pytest.mark.parametrize(
    ("update", "rises", "expected"), [(-1.9, True, True), (-1.9, False, False), (-2.1, True, False)]
)
def test_a_loss_that_rises_is_held_against_smaller_steps(update: float, rises: bool, expected: bool) -> None:
    h = History(Facts(WEIGHT), 400)
    for step in range(200):
        h.losses.add([max(CHANCE - 0.1 * step, 0.1) + (0.02 * (step - 120) if step > 120 and rises else 0.0)])
        if step % 10 == 0:
            statistics = {"update_to_data": {"w": update}, "gradient_std": {"w": 1.0}}
            h.add(Observation(step, statistics, {}, Output("cross_entropy", CHANCE, CHANCE, 0.01, 0.3)))
    assert ("R14" in found(h)) == rises
    assert ("R09" in found(h)) == expected


@pytest.mark.parametrize(("update", "left", "expected"), [(-1.9, 1.0, True), (-1.9, 0.95, False), (-2.1, 1.0, False)])
def test_steps_of_what_stays_at_chance_are_held_against_it(update: float, left: float, expected: bool) -> None:
    h = History(Facts(WEIGHT), 400)
    for step in range(250):
        h.losses.add([CHANCE * left])
        if step % 10 == 0:
            statistics = {"update_to_data": {"w": update}, "gradient_std": {"w": 1.0}}
            h.add(Observation(step, statistics, {}, Output("cross_entropy", CHANCE, CHANCE, 0.01, 0.3)))
    finding = found(h).get("R09")
    assert (finding is not None) == expected
    assert finding is None or finding.threshold == -2.0 < finding.value


@pytest.mark.parametrize(
    ("end", "falls", "severity"), [(0.8, False, "warning"), (0.8, True, "note"), (0.7, False, "note")]
)
def test_steps_that_keep_a_loss_high(end: float, falls: bool, severity: str) -> None:
    h = History(Facts(WEIGHT), 400)
    for step in range(380):
        left = max(1.0 - 0.01 * step, end) + (0.2 * (1 - step / 380) if falls else 0.0)
        h.losses.add([CHANCE * left * (1 + 0.02 * (-1) ** step)])
        if step % 10 == 0:
            statistics = {"update_to_data": {"w": -1.6}, "gradient_std": {"w": 1.0}}
            h.add(Observation(step, statistics, {}, Output("cross_entropy", CHANCE, CHANCE, 0.01, 0.3)))
    finding = found(h)["R09"]
    assert finding.severity == severity
    assert ("rests at 80%" in finding.message) == (severity == "warning")


@pytest.mark.parametrize(("rise", "first"), [(25.0, "R14"), (1.0, "R09")])
def test_a_rate_that_leaps_is_what_makes_weights_move_too_far(rise: float, first: str) -> None:
    """Whatever the steps are before, or where nothing is known of the rate."""
    findings = found(leaping(-1.5, rises={200: rise}))
    assert next(iter(findings)) == first
    assert findings["R14"].suggestion.startswith(SCHEDULE) == (first == "R14")


def test_a_warm_up_that_begins_at_next_to_nothing_is_no_leap_of_the_rate() -> None:
    assert leaping(-2.8, at=20, rises={10: 11.0}).raised_rate(21) is None
    assert leaping(-2.8, at=20, rises={20: 11.0}).raised_rate(21) is not None


@pytest.mark.parametrize(("reference", "end", "told"), [(1.0, 1.65, False), (4.0, 1.9, True)])
def test_what_single_batches_cost_makes_no_network_trained_before(reference: float, end: float, told: bool) -> None:
    """The first loss is to be far below what knowing nothing costs on that very batch."""
    h = History(Facts(WEIGHT), 400)
    for step in range(0, 400, 10):
        h.losses.add([1.0 if step < 100 else end] * 10)
        of_batch = 20.0 if step % 50 == 40 else reference
        output = Output("regression", of_batch, 1.0, 0.01, math.nan, of_batch)
        h.add(Observation(step, {"update_to_data": {"w": -2.8}, "gradient_std": {"w": 1.0}}, {}, output))
    messages = [f.message for f in found(h).values() if f.rule == "R14"]
    assert any("trained before" in message for message in messages) == told


@pytest.mark.parametrize(("last", "expected"), [(190, False), (200, True)])
def test_the_last_of_the_early_looks_is_judged_too(last: int, expected: bool) -> None:
    """Then nothing has been learned for long enough, and the next look may be the end of a short run."""
    h, diagnosis = History(Facts(WEIGHT), 400), Diagnosis()
    for step in range(0, last + 1, 10):
        h.losses.add([CHANCE] * (10 if step else 1))
        statistics = {"update_to_data": {"w": -1.6}, "gradient_std": {"w": 1.0}}
        h.add(Observation(step, statistics, {}, Output("cross_entropy", CHANCE, CHANCE, 0.01, 0.3)))
        diagnosis.follow(h)
    warned = [finding.rule for finding in diagnosis.findings if finding.severity == "warning"]
    assert ("R09" in warned) == expected


def steady(update: float, loss: Callable[[int], float], flat: tuple[float, float] = (0.0, 0.0)) -> History:
    """Return a run of 300 steps with this loss, and with these shares of flat outputs at the start and later."""
    h = History(Facts(WEIGHT), 300)
    for step in range(300):
        h.losses.add([loss(step)])
        if step % 10 == 0:
            statistics = {"update_to_data": {"w": update}, "gradient_std": {"w": 1.0}}
            statistics["saturation"] = {"act": flat[step > 50]}
            output = Output("cross_entropy", CHANCE, loss(step), 0.01, 0.3)
            h.add(Observation(step, statistics, {"act": "tanh"}, output))
    return h


def halves(step: int) -> float:
    return max(CHANCE - 0.02 * step, 0.4 * CHANCE)


@pytest.mark.parametrize(
    ("flat", "odd", "severity"),
    [
        ((0.1, 0.1), 0, "note"),
        ((0.1, 0.7), 0, "warning"),
        ((0.5, 0.7), 0, "note"),  # by an init with a large gain
        ((0.1, 0.1), 12, "warning"),  # each twelfth loss is far from those around it
    ],
)
def test_large_steps_with_a_second_sign_of_harm(flat: tuple[float, float], odd: int, severity: str) -> None:
    """Either alone is a note, for networks that learn well have one or the other."""
    h = steady(-1.6, lambda step: halves(step) + (0.5 if odd and step % odd == 0 else 0.001 * (step % 3)), flat)
    findings = found(h)
    assert findings["R09"].severity == severity
    if severity == "warning":
        assert next(iter(findings)) == "R09"


def test_large_steps_before_losses_that_go_high_are_to_blame() -> None:
    """A loss that leaps out of calm is of its batch only where the steps before it were no larger than usual."""
    blamed, high = {}, random.Random(0)
    losses = [1.0] * 200 + [50.0] + [high.choice([3.0, 5.0, 400.0]) for _ in range(99)]
    for update in (-2.8, -1.2):
        h = steady(update, lambda step: losses[step])
        blamed[update] = found(h)["R07"].suggestion.startswith(BATCHES)
    assert blamed == {-2.8: True, -1.2: False}


@pytest.mark.parametrize(
    ("slope", "noise", "update", "rule"),
    [
        (4e-4, 0.01, -4.5, "R14"),
        (4e-4, 0.01, -2.5, None),  # larger steps rise by more than that, if they do
        (0.0, 0.01, -4.5, "R10"),
        (4e-5, 0.2, -4.5, "R10"),
    ],
)
def test_small_steps_up_the_hill(slope: float, noise: float, update: float, rule: str | None) -> None:
    """To raise the rate is no remedy for a loss that rises."""
    findings = found(steady(update, lambda step: CHANCE + slope * step + noise * math.sin(12.9898 * step)))
    assert (findings.keys() & {"R10", "R14"}) == ({rule} if rule else set())
    if rule == "R14":
        assert findings["R14"].severity == "warning"
        assert findings["R14"].suggestion.startswith(SIGN)
