"""Learning rates as they are at the observed steps."""

import pytest
import torch

from bnlm.callbacks.learning_rates import LearningRates


def test_shares_and_rises() -> None:
    """Of the highest so far, and of the last observed step; the largest over all groups."""
    weights = [torch.nn.Parameter(torch.zeros(2)) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": [w], "lr": lr} for w, lr in zip(weights, (0.1, 0.0), strict=True)], lr=1.0)
    rates = LearningRates()
    rates.start(goes_on=False)
    for step, (first, second) in enumerate([(0.1, 0.0), (0.05, 0.2), (0.5, 0.1), (0.25, 0.1)]):
        for group, lr in zip(optimizer.param_groups, (first, second), strict=True):
            group["lr"] = lr
        rates.note(step, [optimizer])
    taken = [rates.take(step)[:2] for step in range(4)]
    assert taken == [(1.0, 1.0), (1.0, pytest.approx(0.5)), (1.0, pytest.approx(10.0)), (0.5, 1.0)]
    rates.start(goes_on=True)
    rates.note(9, [optimizer])
    assert rates.take(9)[:2] == (0.5, 1.0)  # the highest is known still, the last is another run's
