"""The course of a loss against plain counts."""

from __future__ import annotations

import math
import random
import statistics

import pytest

from bnlm.doctor.loss_course import LossCourse
from bnlm.doctor.observation import Output
from bnlm.doctor.reference_loss import ReferenceLoss


def noisy(mean: float, n: int, std: float = 1.0) -> list[float]:
    draw = random.Random(0)
    return [draw.gauss(mean, std) for _ in range(n)]


def test_noise_is_no_improvement() -> None:
    flat = LossCourse(ReferenceLoss())
    flat.add([5.0, 5.0, 5.0, 5.0, *noisy(4.0, 300)])  # four bad batches at the start
    assert not flat.improves()
    falls = LossCourse(ReferenceLoss())
    falls.add([*noisy(5.0, 30), *noisy(3.0, 300)])
    assert falls.improves()
    assert LossCourse(ReferenceLoss()).improves()  # no loss is known


def test_a_slow_fall_is_no_standstill() -> None:
    slow, flat = LossCourse(ReferenceLoss()), LossCourse(ReferenceLoss())
    slow.add([2.3 + 0.05 * noise - 2e-3 * i for i, noise in enumerate(noisy(0, 100))])
    flat.add([2.3 + 0.05 * noise for noise in noisy(0, 100)])
    assert slow.falls(100)
    assert not flat.falls(100)


def test_a_loss_below_zero_has_no_spikes() -> None:
    course = LossCourse(ReferenceLoss())
    course.add([1.4, *noisy(-1.3, 300, 0.2)])  # a likelihood's
    assert not course.spikes
    course.add([5.0])
    assert list(course.spikes) == [302]


@pytest.mark.parametrize("together", [1, 7, 100])
@pytest.mark.parametrize("level", [-2.0, 0.02, 3.0])
def test_spikes_are_the_same_however_losses_come(level: float, together: int) -> None:
    """Against a plain count: three times the median of the ten before, the reference and six standard errors more."""
    reference = ReferenceLoss()
    noise = random.Random(0)
    losses = [level + noise.gauss(0, 0.1) for _ in range(400)]
    reference.add(Output("cross_entropy", 1.0, losses[0], 0.1, 1.0))
    course = LossCourse(reference)
    border = level + 2 * abs(level) + 1.6
    losses[150:154] = [border - 0.5, border + 0.5, border - 0.5, border + 0.5]
    losses[230], losses[300], losses[301], losses[399] = math.nan, 50.0, 40.0, border + 0.5
    finite: list[float] = []
    expected = []
    for count, loss in enumerate(losses, start=1):
        if math.isfinite(loss):
            if len(finite) >= 10:
                median = statistics.median(finite[-10:])
                if loss > median + 2 * abs(median) + 1.6:
                    expected.append(count)
            finite.append(loss)
    for start in range(0, 400, together):
        course.add(losses[start : start + together])
    assert expected == [152, 154, 301, 302, 400]
    assert list(course.spikes) == expected
    assert list(course.last) == finite
    assert course.non_finite == 1


@pytest.mark.parametrize("together", [1, 7, 100])
def test_a_loss_that_rises_is_followed_however_losses_come(together: int) -> None:
    """Against a plain running mean: it falls, rises for good at step 200, and comes back at 320."""
    reference = ReferenceLoss()
    reference.add(Output("cross_entropy", 3.0, 3.0, 0.1, 1.0))
    course = LossCourse(reference)
    noise = random.Random(0)
    levels = [3.0] * 100 + [1.0] * 100 + [2.0] * 120 + [1.0] * 80
    losses = [level + noise.gauss(0, 0.1) for level in levels]
    smooth, best, above = 0.0, math.inf, 0
    for start in range(0, 400, together):
        course.add(losses[start : start + together])
        for count in range(start, min(400, start + together)):
            weight = max(0.05, 1 / (count + 1))
            smooth = (1 - weight) * smooth + weight * losses[count]
            if count >= 9:
                best = min(best, smooth)
                above = above + 1 if smooth - best > max(0.3 * best, 0.15 * 3.0) else 0
        assert course.smooth == pytest.approx(smooth, rel=1e-12)
        assert course.best == pytest.approx(best, rel=1e-12)
        assert course.steps_above == above
        assert course.worst_rise == (pytest.approx(smooth / best, rel=1e-12) if above else 0.0)
        assert course.steps == len(course.last) == min(400, start + together)
    assert not course.spikes
    assert course.steps == 400
