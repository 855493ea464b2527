"""Losses wait for the next observed step, of whatever shape and precision, and not without end."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from bnlm.callbacks import step_losses
from bnlm.callbacks.step_losses import StepLosses


def trainer_and_module() -> tuple[Any, Any]:
    trainer = SimpleNamespace(global_step=0, optimizers=[None], is_global_zero=True, accumulate_grad_batches=1)
    return trainer, SimpleNamespace(automatic_optimization=True)


def batch_ends(losses: StepLosses, loss: Tensor) -> None:
    losses.batch_ends(*trainer_and_module(), {"loss": loss})


def started() -> StepLosses:
    losses = StepLosses()
    losses.start(trainer_and_module()[0])
    return losses


def test_losses_come_in_their_order() -> None:
    losses = started()
    first = torch.tensor(1.0)
    batch_ends(losses, first)
    keep = losses.in_passing(first, 2)
    assert keep is not None
    keep(torch.tensor(2.0, dtype=torch.float64))
    keep(torch.tensor(3.0, dtype=torch.bfloat16))
    batch_ends(losses, torch.tensor([[4.0], [5.0]], requires_grad=True))
    assert losses.take() == [1.0, 2.0, 3.0, 4.0, 5.0]
    keep(torch.tensor(6.0))  # what was handed out is good for the steps to come
    assert losses.take() == [6.0]
    assert losses.take() == []


class Elsewhere(Tensor):
    """On a device for which to read a number is to wait, but for one that is told when that is done."""

    is_cpu = property(lambda self: False)  # type: ignore[assignment]

    def item(self) -> float:
        raise AssertionError("somebody waits")


def test_losses_of_another_device_are_read_together() -> None:
    losses = started()
    first, second, third = (x.as_subclass(Elsewhere) for x in (torch.tensor(1.0), torch.tensor(2.0), torch.ones(1, 2)))
    batch_ends(losses, first)
    keep = losses.in_passing(losses._last, 3)
    assert keep is not None
    keep(second)
    batch_ends(losses, torch.tensor(3.0))  # a batch without examples, say
    batch_ends(losses, third)
    assert losses.take() == [1.0, 2.0, 3.0, 1.0, 1.0]
    assert losses.take() == []


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_losses, "MAX_WAITING", 4)
    losses = started()
    loss = torch.tensor(0.0)
    batch_ends(losses, loss)
    keep = losses.in_passing(loss, 1000)
    assert keep is not None
    for step in range(1, 1000):
        keep(torch.tensor(float(step)))
    assert losses.take() == [0.0, 1.0, 2.0, 3.0]


def test_a_loss_that_did_not_come_from_the_batch_is_not_believed() -> None:
    losses = started()
    batch_ends(losses, torch.tensor(1.0))
    assert losses.in_passing(torch.tensor(1.0), 10) is None
    assert losses.in_passing(None, 10) is None


def manual(step: int) -> tuple[Any, Any]:
    trainer, _ = trainer_and_module()
    trainer.global_step = step
    trainer.precision_plugin = None
    return trainer, SimpleNamespace(automatic_optimization=False)


@pytest.mark.parametrize(("taken", "expected"), [(1, [2.0]), (2, [2.0]), (3, [1.0, 2.0, 3.0])])
def test_several_losses_are_of_examples_or_of_steps(taken: int, expected: list[float]) -> None:
    losses = started()
    losses.batch_ends(*manual(taken), torch.tensor([1.0, 2.0, 3.0]))
    assert losses.take() == expected


def test_losses_of_backward_passes_have_any_shape() -> None:
    losses = started()
    for loss in (torch.tensor(1.0), torch.tensor([2.0]), torch.tensor([[3.0, 9.0]], dtype=torch.float64)):
        losses.before_backward(*manual(1), loss)
    losses.batch_ends(*manual(1), None)
    assert losses.take() == [3.0]
