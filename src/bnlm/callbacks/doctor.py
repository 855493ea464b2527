"""Reads a training run as a doctor would: what is wrong, where, since when, and what to change."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import Tensor

from bnlm.callbacks.dead_units import DeadUnits
from bnlm.callbacks.findings_file import write_findings, write_findings_text
from bnlm.callbacks.gradient_watch import GradientWatch
from bnlm.callbacks.learning_rates import LearningRates
from bnlm.callbacks.left_gradients import LeftGradients
from bnlm.callbacks.monitor import Monitor
from bnlm.callbacks.moved_weights import MovedWeights
from bnlm.callbacks.observed_step import ObservedStep, Statistics
from bnlm.callbacks.options import dims_by_pattern
from bnlm.callbacks.running_statistics_watch import RunningStatisticsWatch, untouched
from bnlm.callbacks.step_losses import StepLosses
from bnlm.callbacks.unread_steps import Asked
from bnlm.callbacks.validation_losses import ValidationLosses
from bnlm.doctor import (
    Diagnosis,
    Finding,
    History,
    Observation,
    Output,
    facts_of,
    print_findings,
)
from bnlm.probe import Wanted

log = logging.getLogger("bnlm")

#: Until this step the doctor looks more often: most of what goes wrong shows in the first hundred steps.
EARLY_STEPS, EARLY_EVERY = 200, 10


class CriticalFindingError(RuntimeError):
    """Raised by `Doctor(on_critical="raise")`."""


class Doctor(Monitor):
    """Applies the rules of `bnlm.doctor` to any LightningModule while it trains.

    Add it alone, `callbacks=[Doctor()]`, or beside the monitors. It looks at step 0, at every 10th step until step 200
    and at every n-th after it; on all other steps it keeps the loss, no more. What it finds is in
    `findings`, causes before their consequences; a line is logged when a finding first appears; at the end of training
    there are a printed table, the text `doctor` in TensorBoard, and `findings.json` in the folder.

    Args:
        every_n_steps: Observe every so many optimizer steps.
        on_critical: When a critical finding appears, go on ("continue"), end training in good order ("stop"), or raise
            a CriticalFindingError ("raise").
        folder: Where findings.json goes; None for the logger's folder (its `log_dir`), or nowhere without a logger.
        table: Whether a table is printed when training ends.
        channel_dims: See `ActivationMonitor`.
    Raises:
        ValueError: If an argument is out of its range.
    """

    hears_every_batch = True

    def __init__(
        self,
        every_n_steps: int = 100,
        on_critical: str = "continue",
        folder: str | None = None,
        table: bool = True,
        channel_dims: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(every_n_steps, None, None)
        self.channel_dims = dims_by_pattern(channel_dims)
        if on_critical not in ("continue", "stop", "raise"):
            raise ValueError(f"diagnostics.on_critical={on_critical!r}: expected continue, stop or raise.")
        self.on_critical = on_critical
        self.folder = folder
        self.table = table
        self._dead_units = DeadUnits()
        self._diagnosis = Diagnosis()
        self._history: History | None = None
        self._losses = StepLosses()
        self._rates = LearningRates()
        self._statistics = RunningStatisticsWatch()
        self._validation_losses = ValidationLosses()
        self._left_gradients = LeftGradients()
        self._gradients = GradientWatch()
        self._weights = MovedWeights()
        self._stop = False

    @property
    def is_urgent(self) -> bool:
        """Whether a finding may end the run."""
        return self.on_critical != "continue"

    @property
    def findings(self) -> list[Finding]:
        """What was found so far: causes before their consequences, the most severe first."""
        self.read()
        return self._diagnosis.findings

    def wanted(self, histograms: bool, figures: bool) -> Wanted:
        # What goes into the loss function tells what knowing nothing costs: a few batches are enough for that.
        losses = self._history is None or self._history.reference.wants_more
        return Wanted(activations=True, gradients=True, updates=True, losses=losses)

    @property
    def next_due(self) -> int:
        early = self._multiple_after_last(min(EARLY_EVERY, self.every_n_steps))
        return early if early <= EARLY_STEPS else self._multiple_after_last(self.every_n_steps)

    def measure(self, seen: ObservedStep) -> Statistics:
        return {**seen.statistics, "dead_units": self._dead_units.shares(seen.responded)}

    def publish(
        self, trainer: Trainer, seen: ObservedStep, asked: Asked
    ) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        assert self._history is not None
        if self._history.facts.lazy and not self._history.observed:  # there are weights by now
            self._history = self._begun(trainer)
        self._history.steps_with_left_gradients = self._left_gradients.steps
        self._hear(self._history)
        share, rise, decays = self._rates.take(seen.step)
        outputs = [Output.of(loss) for loss in seen.losses]
        statistics, output, others = self.measure(seen), next(iter(outputs), None), outputs[1:]
        self._history.add(
            Observation(seen.step, statistics, seen.kinds, output, share, decays, others, seen.heard, rise)
        )
        return {}, {}

    def draw(self, trainer: Trainer, seen: ObservedStep, statistics: Statistics) -> None:
        raise AssertionError("the doctor draws nothing")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        restored = self._restored
        super().on_train_start(trainer, pl_module)
        if not restored:
            self._diagnosis = Diagnosis()
        self._rates.start(goes_on=restored)
        self._dead_units = DeadUnits()
        self._left_gradients = LeftGradients()
        self._gradients = GradientWatch()
        self._history = self._begun(trainer)
        self._losses.start(trainer)
        self._weights.start(pl_module)

    def _begun(self, trainer: Trainer) -> History:
        history = History(facts_of(trainer.lightning_module, trainer.optimizers), self._total_steps)
        # A scaler (fp16) looks for the largest scale that does not overflow: single steps rightly do.
        history.overflows_allowed = 4 if getattr(trainer.precision_plugin, "scaler", None) is not None else 0
        if trainer.gradient_clip_algorithm in (None, "norm"):
            history.clip = float(trainer.gradient_clip_val or 0.0)
        return history

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        self._losses.before_backward(trainer, pl_module, loss)
        if self._last_step == trainer.global_step:
            self._left_gradients.before_backward(trainer, pl_module)

    def idle_hooks(self, trainer: Trainer) -> list[str]:
        idle = super().idle_hooks(trainer)
        overridden = type(self).on_before_backward is not Doctor.on_before_backward
        if not overridden and not LeftGradients.may_occur(trainer.lightning_module):
            idle.append("on_before_backward")  # each batch returns its loss, too
        return idle

    def in_passing(self, loss: Tensor | None, steps: int) -> Callable[[Tensor], None] | None:
        overridden = type(self).on_train_batch_end is not Doctor.on_train_batch_end
        return None if overridden else self._losses.in_passing(loss, steps)

    def step_begins(self, trainer: Trainer, step: int) -> None:
        super().step_begins(trainer, step)
        if self._last_step == step:
            self._rates.note(step, trainer.optimizers)
        # Only the first process draws conclusions: the others have to be told.
        if self._last_step == step and self.on_critical == "stop" and trainer.world_size > 1:
            trainer.should_stop |= trainer.strategy.reduce_boolean_decision(self._stop, all=False)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._losses.batch_ends(trainer, pl_module, outputs)
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if dataloader_idx > 0:
            self._statistics.detach()
        elif self._history is not None and _within_fit(trainer):
            first = self._history.first
            if batch_idx == 0:
                self._statistics.attach(pl_module, {} if first is None else first.heard.values_per_channel)
            if first is not None and first.output is not None:
                self._validation_losses.batch_starts(batch_idx, first.output.kind)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        self._statistics.batch_ends(batch_idx)
        self._validation_losses.batch_ends()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._statistics.detach()
        watched = [
            float(value)
            for name, value in trainer.callback_metrics.items()
            if "val" in name.lower() and "loss" in name.lower() and value.numel() == 1
        ]
        heard = self._validation_losses.take()
        # A small factor on the loss that is trained on may be on the one that is logged, or not.
        weight = 1.0 if self._history is None else self._history.reference.weight
        is_watched = len(watched) == 1 and weight >= 1
        self._validation_losses.needed = not is_watched
        if self._history is None or not _within_fit(trainer):
            return
        self.read()
        history = self._history
        if (gap := self._statistics.take(history.facts.batch_norms, trainer.global_step)) is not None:
            history.gaps.append(gap)
        # A stream without an end may repeat itself or not.
        history.repeats = trainer.current_epoch > 0 or not math.isfinite(trainer.num_training_batches)
        self._hear(history)  # since the last observed step, too
        train = history.losses.recent(50)
        validation = watched[0] if is_watched else None if heard is None else heard * weight
        if validation is not None and math.isfinite(train):
            history.validations.append((validation, train))
        if history.recent:
            self._judge(self._diagnosis.update(history), trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_end(trainer, pl_module)
        self._gradients.follow(pl_module, ())
        if self._history is None:
            return
        if self._history.recent:
            self._hear(self._history)
            self._judge(self._diagnosis.update(self._history), trainer)
        elif trainer.global_step == 0:
            batches, moved = trainer.fit_loop.total_batch_idx + 1, self._weights.have_moved(pl_module)
            self._judge(self._diagnosis.without_steps(batches, moved), trainer)
        self._write(trainer)
        if self.table and trainer.is_global_zero:
            print_findings(self.findings)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        super().on_exception(trainer, pl_module, exception)
        self._statistics.detach()
        self._validation_losses.batch_ends()
        self._gradients.follow(pl_module, ())
        if self._history is not None and self._history.recent:
            self._hear(self._history)
            _tell(self._diagnosis.update(self._history))
        _tell(self._diagnosis.refused(exception, trainer.global_step))
        # Without either, training has not begun, or in processes that wrote what they found.
        if self._history is not None or self.findings:
            self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        write_findings(self.findings, trainer, self.folder)
        write_findings_text(self.findings, trainer)

    def state_dict(self) -> dict[str, Any]:
        findings = [finding.to_dict() for finding in self.findings]
        return {**super().state_dict(), "findings": findings}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        fields = [{k: v for k, v in f.items() if k != "name"} for f in state_dict["findings"]]
        numbers = [{**f, "value": float(f["value"]), "threshold": float(f["threshold"])} for f in fields]
        self._diagnosis.restore([Finding(**f) for f in numbers])

    def conclude(self, trainer: Trainer) -> None:
        assert self._history is not None
        if self._history.warm and self._history.untouched is None:
            self._history.untouched = untouched(trainer.lightning_module)
        for name in self._gradients.follow(trainer.lightning_module, self._history.ungraded_since):
            if trainer.global_step > self._history.step + 1:  # nobody has heard what came since it was observed
                self._history.ungraded_since[name] = trainer.global_step, 0
        self._judge(self._diagnosis.follow(self._history), trainer)

    def _hear(self, history: History) -> None:
        """Take in what has come since the last observed step: losses and gradients."""
        history.losses.add(self._losses.take())
        history.take_turns(self._gradients.take())

    def _judge(self, fresh: list[Finding], trainer: Trainer) -> None:
        """Tell of new findings, and do what is to be done at a critical one."""
        _tell(fresh)
        if fresh:  # a run that is killed has its findings
            write_findings(self._diagnosis.findings, trainer, self.folder)
        critical = [finding for finding in fresh if finding.severity == "critical"]
        if critical and self.on_critical == "stop":
            self._stop = True  # of which the other processes, if there are any, hear when the next observed step begins
            trainer.should_stop |= trainer.world_size == 1
        elif critical and self.on_critical == "raise":
            found = critical[0]
            raise CriticalFindingError(f"{found.rule} {found.name}: {found.message} {found.suggestion}")


def _within_fit(trainer: Trainer) -> bool:
    """Return whether a validation is one of the training, rather than before it, or of `trainer.validate`."""
    return trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking


@rank_zero_only
def _tell(fresh: list[Finding]) -> None:
    for finding in fresh:
        log.warning(f"doctor: {finding.severity} {finding.rule} {finding.name}, step {finding.step}: {finding.message}")
