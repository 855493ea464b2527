"""Observed steps that wait to be read: nothing is lost, nothing changes, and whoever asks gets all."""

import gc
import itertools
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader

from bnlm.callbacks import ActivationMonitor, Doctor, GradientMonitor, UpdateMonitor
from bnlm.callbacks.monitor import Monitor
from bnlm.callbacks.unread_steps import LONGEST_WAIT, PROMPT, TOGETHER
from bnlm.probe.moment_table import MAX_HELD

MakeTrainer = Callable[..., Trainer]
Scalars = dict[int, dict[str, float]]

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")
STEPS = PROMPT + 2 * TOGETHER + 2  # the last two are still waiting when training ends


class Network(LightningModule):
    """Tanh and relu, a rate that falls, and an error in a batch if one is given."""

    def __init__(self, fails_at: int | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
        self.fails_at = fails_at

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = F.cross_entropy(self.net(batch[0]), batch[1])
        if batch_idx == self.fails_at:
            raise RuntimeError("on purpose")
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.5)
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class BreaksLate(Network):
    """A loss that is nan in the last step but one: a finding while steps wait."""

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        return loss * float("nan") if batch_idx == STEPS - 2 else loss


def batches() -> DataLoader:
    generator = torch.Generator().manual_seed(1)
    drawn = [
        [torch.randn(9, 4, generator=generator), torch.randint(3, (9,), generator=generator)] for _ in range(STEPS)
    ]
    return DataLoader(drawn, batch_size=None)


def monitors() -> list[Monitor]:
    quiet = {"histograms_every_n_steps": None, "figures_every_n_steps": None}
    return [*(kind(1, **quiet) for kind in (ActivationMonitor, GradientMonitor, UpdateMonitor)), Doctor(1, table=False)]


def test_what_is_read_together_is_what_is_read_at_once(
    make_trainer: MakeTrainer, monitored: Callable[[Path], Scalars], tmp_path: Path
) -> None:
    """Another logger has every step read at once."""
    together, at_once = monitors(), monitors()
    make_trainer("together", callbacks=together, max_steps=STEPS).fit(Network(), batches())
    loggers = [TensorBoardLogger(tmp_path, "at_once", version=""), CSVLogger(tmp_path, "csv")]
    make_trainer(callbacks=at_once, max_steps=STEPS, logger=loggers).fit(Network(), batches())
    found = monitored(tmp_path / "together")
    assert list(found) == list(range(STEPS))
    assert found == monitored(tmp_path / "at_once")
    for one, other in zip(together, at_once, strict=True):
        assert repr(one.state_dict()) == repr(other.state_dict())
    (doctor, prompt) = (each[-1] for each in (together, at_once))
    assert isinstance(doctor, Doctor)
    assert isinstance(prompt, Doctor)
    assert [o.lr_share for o in doctor._history.recent] == [o.lr_share for o in prompt._history.recent]
    assert list(doctor._history.losses.last) == list(prompt._history.losses.last)


class Peek(Callback):
    """Does something after a batch, and keeps what it returns."""

    def __init__(self, look: Callable[[Trainer], object]) -> None:
        self.look = look
        self.seen: list[object] = []

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        self.seen.append(self.look(trainer))


def steps_behind(trainer: Callable[..., Trainer], network: LightningModule, *others: Callback, **cadences: Any) -> list:
    """Return how many observed steps each batch is ahead of what has been read."""
    given = {"every_n_steps": 1, "histograms_every_n_steps": None, "figures_every_n_steps": None} | cadences
    monitor = UpdateMonitor(**given)

    def behind(trainer: Trainer) -> int:
        observed = (trainer.global_step - 1) // monitor.every_n_steps
        return observed - max(step for step, _ in monitor._history["net.0.weight"]) // monitor.every_n_steps

    peek = Peek(behind)
    trainer(callbacks=[monitor, *others, peek]).fit(network, batches())
    return peek.seen


def test_the_first_steps_are_read_at_once_and_then_several_together(make_trainer: MakeTrainer) -> None:
    behind = steps_behind(partial(make_trainer, max_steps=STEPS), Network())
    assert behind[:PROMPT] == [0] * PROMPT
    assert behind[PROMPT:] == [*range(1, TOGETHER), 0, *range(1, TOGETHER), 0, 1, 2]


def test_steps_with_histograms_or_figures_do_not_wait(make_trainer: MakeTrainer) -> None:
    for cadence in ("histograms_every_n_steps", "figures_every_n_steps"):
        behind = steps_behind(partial(make_trainer, max_steps=STEPS), Network(), **{cadence: 2})
        assert behind[PROMPT:] == [step % 2 for step in range(PROMPT, STEPS)], cadence


def test_another_logger_gets_each_step_in_its_order(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    loggers = [TensorBoardLogger(tmp_path, "run", version=""), CSVLogger(tmp_path)]
    assert not any(steps_behind(partial(make_trainer, max_steps=STEPS, logger=loggers), Network()))


@pytest.mark.parametrize("on_critical", ["stop", "raise"])
def test_who_may_end_the_run_hears_at_once(make_trainer: MakeTrainer, on_critical: str) -> None:
    doctor = Doctor(1, on_critical=on_critical, table=False)
    assert not any(steps_behind(partial(make_trainer, max_steps=STEPS), Network(), doctor))


def test_a_large_network_is_read_at_once(make_trainer: MakeTrainer) -> None:
    network = Network()
    network.net = nn.Sequential(nn.Linear(4, MAX_HELD // 12), nn.Tanh(), nn.Linear(MAX_HELD // 12, 3))
    assert not any(steps_behind(partial(make_trainer, max_steps=PROMPT + 3), network))


def test_nothing_waits_for_long(make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Observed steps that take 0.3 of the longest wait are read three at a time: four would wait longer."""
    seconds = itertools.count(0, 0.3 * LONGEST_WAIT)
    monkeypatch.setattr("bnlm.callbacks.unread_steps.monotonic", lambda: next(seconds))
    behind = steps_behind(partial(make_trainer, max_steps=PROMPT + 8), Network())
    assert behind[PROMPT:] == [1, 2, 3, 0, 1, 2, 3, 0]


def test_slow_steps_do_not_wait(make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = itertools.count(0, LONGEST_WAIT)
    monkeypatch.setattr("bnlm.callbacks.unread_steps.monotonic", lambda: next(seconds))
    assert not any(steps_behind(partial(make_trainer, max_steps=PROMPT + 3), Network()))


@pytest.mark.parametrize("kind", [ActivationMonitor, GradientMonitor, UpdateMonitor, Doctor])
def test_a_checkpoint_holds_what_still_waits(make_trainer: MakeTrainer, kind: type[Monitor], tmp_path: Path) -> None:
    """Each kind alone: beside others, the first that is asked reads for all."""

    def states(logger: Any) -> list[object]:
        monitor = kind(1)
        monitor.figures_every_n_steps = monitor.histograms_every_n_steps = None
        peek = Peek(lambda trainer: repr(monitor.state_dict()) if trainer.global_step == STEPS - 1 else None)
        network = BreaksLate() if kind is Doctor else Network()
        make_trainer(callbacks=[monitor, peek], max_steps=STEPS, logger=logger).fit(network, batches())
        return peek.seen

    assert states(False) == states(CSVLogger(tmp_path))


def test_findings_are_up_to_date_whenever_they_are_asked_for(make_trainer: MakeTrainer) -> None:
    doctor = Doctor(1, table=False)
    peek = Peek(lambda trainer: [f.rule for f in doctor.findings] if trainer.global_step == STEPS - 1 else None)
    make_trainer(callbacks=[doctor, peek], max_steps=STEPS).fit(BreaksLate(), batches())
    assert peek.seen[-2] is not None
    assert "R08" in peek.seen[-2]


def test_a_failure_loses_nothing_that_was_seen_before(
    make_trainer: MakeTrainer, monitored: Callable[[Path], Scalars], tmp_path: Path
) -> None:
    with pytest.raises(RuntimeError, match="on purpose"):
        make_trainer(callbacks=monitors(), max_steps=STEPS).fit(Network(fails_at=STEPS - 1), batches())
    assert list(monitored(tmp_path / "run")) == list(range(STEPS - 1))


def test_findings_outlive_the_trainer(make_trainer: MakeTrainer) -> None:
    """The module belongs to another trainer by then."""
    doctor, network = Doctor(1, table=False), BreaksLate()
    trainer = make_trainer(callbacks=[doctor], max_steps=STEPS)
    trainer.fit(network, batches())
    make_trainer("second", max_steps=1).fit(network, batches())
    gone = weakref.ref(trainer)
    del trainer
    gc.collect()
    assert gone() is None
    assert "R08" in [finding.rule for finding in doctor.findings]
    assert doctor.state_dict()["findings"]


def test_a_trainer_and_its_network_are_freed(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(callbacks=monitors(), max_steps=2)
    trainer.fit(Network(), batches())
    gone = weakref.ref(trainer)
    del trainer
    gc.collect()
    assert gone() is None
