"""What the three monitors have in common: when they look, and how they share one look."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from lightning.pytorch import Callback, LightningModule, Trainer

from bnlm.callbacks.shared_observation import Measured, OnHost, SharedObservation
from bnlm.callbacks.tensorboard import has_tensorboard, write_step
from bnlm.probe import StepRecord, Wanted


class Monitor(Callback, ABC):
    """Observes the optimizer steps 0, n, 2n, ... of any LightningModule and writes to all of the trainer's loggers.

    On any other step it does nothing: no hook is on a module, no tensor is copied. A step is observed up to and
    including the optimizer's step, so micro-batches of gradient accumulation are pooled. Where several optimizer steps
    are taken per batch, a batch's first step at or after each multiple of n is observed.

    Args:
        every_n_steps: Observe every so many optimizer steps (`trainer.global_step`).
        histograms_every_n_steps: Write histograms this often (TensorBoard only); None for never.
        figures_every_n_steps: Draw figures this often, and at the first and last observed step; None for never.
    Raises:
        ValueError: If one of them is not a whole number of at least 1.
    """

    #: Of a batch with several optimizer steps, the first alone is observed.
    needs_every_step: ClassVar[bool] = False
    #: Title -> regular expressions of tags, for TensorBoard's custom scalars.
    charts: ClassVar[dict[str, list[str]]] = {}

    def __init__(
        self,
        every_n_steps: int = 100,
        histograms_every_n_steps: int | None = 1000,
        figures_every_n_steps: int | None = 20_000,
    ) -> None:
        for name, value, optional in (
            ("every_n_steps", every_n_steps, False),
            ("histograms_every_n_steps", histograms_every_n_steps, True),
            ("figures_every_n_steps", figures_every_n_steps, True),
        ):
            if value is None and optional:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                accepted = "a whole number of at least 1" + (", or null for never" if optional else "")
                raise ValueError(f"diagnostics.{name}={value!r}: expected {accepted}.")
        self.every_n_steps = every_n_steps
        self.histograms_every_n_steps = histograms_every_n_steps
        self.figures_every_n_steps = figures_every_n_steps
        self._last_step: int | None = None
        self._with_histograms = False
        self._with_figures = False
        self._shared: SharedObservation | None = None

    @abstractmethod
    def wanted(self, histograms: bool, figures: bool) -> Wanted:
        """Return what the probe shall look at."""

    @abstractmethod
    def measure(self, record: StepRecord) -> Measured:
        """Reduce an observed step to what is to be written, still on the device."""

    @abstractmethod
    def draw(self, trainer: Trainer, values: OnHost) -> None:
        """Draw the figures of this step."""

    def publish(self, trainer: Trainer, values: OnHost) -> None:
        """Write an observed step to the loggers."""
        self.remember(values)
        histograms = values.histograms if self._with_histograms else None
        write_step(trainer.loggers, values.step, values.scalars, histograms)
        if self._with_figures:
            self.draw(trainer, values)

    def remember(self, values: OnHost) -> None:
        """Keep what later figures need."""

    def forget(self) -> None:
        """Drop what was kept: another run begins."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            self._shared = SharedObservation.join(trainer, self)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._last_step is None or self._last_step >= trainer.global_step:  # also: a new trainer starts at 0 again
            self._last_step = trainer.global_step - 1
            self.forget()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        assert self._shared is not None
        step = trainer.global_step
        if self._crosses(self.every_n_steps, step):
            tensorboard = has_tensorboard(trainer.loggers)
            self._with_histograms = tensorboard and self._crosses(self.histograms_every_n_steps, step)
            self._with_figures = tensorboard and self._figures_due(trainer, step)
            self._shared.ask(self, self.wanted(self._with_histograms, self._with_figures), step)
            self._last_step = step
        self._shared.batch_starts(self, trainer, pl_module)

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self._shared is not None
        self._shared.after_backward(self, trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert self._shared is not None
        self._shared.batch_ends(self, trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._release()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._release()

    def state_dict(self) -> dict[str, Any]:
        return {"last_step": self._last_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._last_step = state_dict["last_step"]

    def _release(self) -> None:
        if self._shared is not None:
            self._shared.release()

    def _crosses(self, cadence: int | None, step: int) -> bool:
        """Whether a multiple of `cadence` lies after the last observed step, up to and including `step`."""
        if cadence is None:
            return False
        assert self._last_step is not None
        return step // cadence != self._last_step // cadence

    def _figures_due(self, trainer: Trainer, step: int) -> bool:
        if self.figures_every_n_steps is None:
            return False
        last = trainer.max_steps > 0 and step + self.every_n_steps >= trainer.max_steps
        return last or self._crosses(self.figures_every_n_steps, step)


def finite_or_left_out(scalars: dict[str, float]) -> dict[str, float]:
    """Drop ratios that do not exist: a parameter that does not vary has no scale to compare with."""
    return {tag: value for tag, value in scalars.items() if abs(value) < float("inf")}
