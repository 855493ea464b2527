"""What knowing nothing costs against closed forms and torch's own losses."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from bnlm.doctor.observation import Output
from bnlm.doctor.reference_loss import ReferenceLoss


def squares(reference: float, loss: float, constant: float = math.nan, error: float = 0.1) -> Output:
    return Output("regression", reference, loss, error, math.nan, constant)


def started(output: Output, *first_losses: float) -> ReferenceLoss:
    """Return that of a run whose first observed step was this, as the history keeps it."""
    known = ReferenceLoss()
    known.output = output
    known.first_losses.extend(first_losses)
    known.add(output)
    return known


def test_without_a_loss_function_it_is_the_first_losses() -> None:
    known = ReferenceLoss()
    assert math.isnan(known.loss)
    known.first_losses.extend([3.0, 4.0])
    assert not known.is_known
    assert known.loss == 3.5
    assert math.isnan(known.of_a_constant)
    assert math.isnan(known.batch_error)
    assert known.weight == 1.0


def test_that_of_targets_is_the_mean_over_batches() -> None:
    known = ReferenceLoss()
    for square in (0.5, 1.5, 1.0, math.inf):
        known.add(squares(square, 1.0))
    assert known.loss == pytest.approx(1.0)


def test_a_regression_that_starts_at_the_mean_has_that_to_beat() -> None:
    targets = 5 + torch.randn(64, generator=torch.Generator().manual_seed(0))
    zero, mean = float(targets.square().mean()), float(targets.var(correction=0))
    far, near = (started(squares(zero, loss, mean), loss) for loss in (zero, 1.1 * mean))
    assert far.loss == pytest.approx(zero)
    assert near.loss == pytest.approx(mean)


@pytest.mark.parametrize(("factor", "weight"), [(1.0, 1.0), (2.0, 2.0), (32.0, 32.0), (0.1, 0.1), (1.3, 1.0)])
def test_a_loss_that_is_a_multiple_is_weighed(factor: float, weight: float) -> None:
    """Of 1.3 times it is nothing but a loss with other terms, which are no weight."""
    known = started(Output("cross_entropy", math.log(10), 2.4, 0.1, 0.3), factor * 2.4)
    assert known.weight == pytest.approx(weight)
    assert known.loss == pytest.approx(weight * math.log(10))
    assert known.batch_error == pytest.approx(weight * 0.1)
    assert known.has_other_terms == (factor == 1.3)


def test_the_frequencies_of_classes_are_those_of_the_best_constant_logits() -> None:
    targets = torch.tensor([0] * 300 + [1] * 200 + [2] * 100)
    counts = torch.bincount(targets).tolist()
    known = started(Output("cross_entropy", math.log(3), 1.2, 0.1, 0.3, counts=counts), 1.2)
    best = F.cross_entropy(torch.tensor(counts).log().expand(600, 3), targets)
    assert known.of_frequencies == pytest.approx(float(best) + 2 / 1200, rel=1e-6)  # two free shares over 2 N
    assert math.isnan(started(Output("cross_entropy", math.log(3), 1.2, 0.1, 0.3, counts=counts), 1.9).of_frequencies)


def test_a_few_batches_of_classes_are_enough_and_no_number_of_squares() -> None:
    classes, regression = (ReferenceLoss() for _ in range(2))
    for _ in range(20):
        assert classes.wants_more
        classes.add(Output("cross_entropy", 2.3, 2.3, 0.1, 0.3))
        regression.add(squares(1.0, 1.0))
    assert not classes.wants_more
    assert regression.wants_more


@pytest.mark.parametrize(("loss", "expected"), [(48.0, True), (47.0, False), (None, False)])
def test_a_written_loss_is_one_where_the_step_has_a_multiple_of_it(loss: float | None, expected: bool) -> None:
    written = Output("regression", 1.0, 1.5, 0.1, math.nan, scales=(1.0, 32.0))
    known = ReferenceLoss()
    assert known.is_of_the_loss(written, loss) == expected
    if loss is not None:  # what the first showed holds for the rest
        assert known.is_of_the_loss(written, 3.0) == expected
