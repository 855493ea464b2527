"""A progress bar that counts optimizer steps."""

import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class StepProgress(ProgressBar):
    """Shows optimizer steps, steps/s and the last logged loss.

    Lightning's own bars count batches, of which one holds many steps here, and refresh with every batch.

    Args:
        refresh_seconds: Redraw at most this often; between redraws it costs one look at the clock per batch.
    """

    def __init__(self, refresh_seconds: float = 0.5) -> None:
        super().__init__()
        self.refresh_seconds = refresh_seconds
        self._progress: Progress | None = None
        self._enabled = True

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._enabled or not trainer.is_global_zero:
            return
        self._progress = Progress(
            TextColumn("training"),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(),
            auto_refresh=False,
        )
        total = trainer.max_steps if trainer.max_steps > 0 else None
        self._task = self._progress.add_task("", total=total, completed=trainer.global_step, state="")
        self._progress.start()
        self._start = self._last = (time.monotonic(), trainer.global_step)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._progress is not None and time.monotonic() - self._last[0] >= self.refresh_seconds:
            self._redraw(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._progress is not None:
            self._last = self._start  # the speed that stays on the screen is the whole run's
            self._redraw(trainer)
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._close()

    def _redraw(self, trainer: Trainer) -> None:
        assert self._progress is not None
        now, step = time.monotonic(), trainer.global_step
        speed = (step - self._last[1]) / max(now - self._last[0], 1e-9)
        losses = {name: trainer.callback_metrics.get(name) for name in ("train/loss", "val/loss")}
        shown = [f"{name} {float(value):.4f}" for name, value in losses.items() if value is not None]
        self._progress.update(self._task, completed=step, state="  ".join([f"{speed:,.0f} steps/s", *shown]))
        self._progress.refresh()
        self._last = (now, step)

    def _close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
