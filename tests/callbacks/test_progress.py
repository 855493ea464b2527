"""The progress bar: what it shows, that it shows it seldom, and that it leaves the terminal free."""

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from rich.progress import Progress
from torch import Tensor, nn
from torch.utils.data import DataLoader

from bnlm.callbacks import StepProgress

MakeTrainer = Callable[..., Trainer]

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")


class Steps(LightningModule):
    """Logs a known loss; may fail."""

    def __init__(self, fail_at: int = -1) -> None:
        super().__init__()
        self.linear, self.fail_at = nn.Linear(3, 2), fail_at

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        if self.global_step == self.fail_at:
            raise RuntimeError("failed")
        self.log("train/loss", 1.25, logger=False)
        return self.linear(batch).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(make_trainer: MakeTrainer, progress: StepProgress, model: LightningModule, **options: Any) -> Trainer:
    options = {"max_steps": 6, "enable_progress_bar": True, "callbacks": [progress]} | options
    trainer = make_trainer(**options)
    trainer.fit(model, DataLoader(torch.randn(12, 3), batch_size=2))
    return trainer


def test_it_shows_steps_speed_and_loss(make_trainer: MakeTrainer, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = fit(make_trainer, StepProgress(), Steps())
    shown = capsys.readouterr().out
    assert trainer.progress_bar_callback.__class__ is StepProgress
    assert "6/6" in shown
    assert "steps/s" in shown
    assert "train/loss 1.2500" in shown


@pytest.mark.parametrize("options", [{"max_steps": -1, "max_epochs": 2}, {"accumulate_grad_batches": 2}])
def test_it_counts_optimizer_steps(
    options: dict[str, Any], make_trainer: MakeTrainer, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = fit(make_trainer, StepProgress(0), Steps(), **options)
    assert f"{trainer.global_step}/{'?' if 'max_epochs' in options else 6}" in capsys.readouterr().out


def test_it_is_redrawn_seldom(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    redrawn: list[int] = []
    redraw = StepProgress._redraw
    monkeypatch.setattr(
        StepProgress, "_redraw", lambda self, trainer: (redrawn.append(trainer.global_step), redraw(self, trainer))
    )
    clock = iter(range(10_000))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock) / 10)
    fit(make_trainer, StepProgress(refresh_seconds=1e9), Steps())
    assert redrawn == [6]
    redrawn.clear()
    fit(make_trainer, StepProgress(refresh_seconds=0), Steps())
    assert redrawn == [1, 2, 3, 4, 5, 6, 6]


def test_after_an_exception_another_bar_can_be_shown(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The one of the run that failed has been stopped: it would keep the terminal's cursor and its last line."""
    stopped: list[Progress] = []
    stop = Progress.stop
    monkeypatch.setattr(Progress, "stop", lambda self: (stopped.append(self), stop(self)))
    progress = StepProgress()
    with pytest.raises(RuntimeError, match="failed"):
        fit(make_trainer, progress, Steps(fail_at=3))
    assert len(stopped) == 1
    fit(make_trainer, progress, Steps())
    assert len(stopped) == 2
    assert "6/6" in capsys.readouterr().out


def test_it_can_be_switched_off(make_trainer: MakeTrainer, capsys: pytest.CaptureFixture[str]) -> None:
    progress = StepProgress()
    progress.disable()
    fit(make_trainer, progress, Steps())
    assert capsys.readouterr().out == ""
    progress.enable()
    fit(make_trainer, progress, Steps())
    assert "6/6" in capsys.readouterr().out
