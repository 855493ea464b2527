"""What the three monitors have in common: when they look, and how they share one look."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from math import inf, isfinite
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from bnlm.callbacks.observed_step import ObservedStep, Statistics
from bnlm.callbacks.options import patterns
from bnlm.callbacks.shared_observation import BATCH_HOOKS, WHEN_DUE, SharedObservation
from bnlm.callbacks.tensorboard import has_tensorboard
from bnlm.callbacks.unread_steps import Asked
from bnlm.probe import StepRecord, Wanted

log = logging.getLogger("bnlm")

Seen = TypeVar("Seen")


class Monitor(Callback, ABC):
    """Observes the optimizer steps 0, n, 2n, ... of any LightningModule and writes to all of the trainer's loggers.

    On any other step it does nothing: no hook is on a module, no tensor is copied. A step is observed up to and
    including the optimizer's step, so micro-batches of gradient accumulation are pooled. Where several optimizer steps
    are taken per batch, a batch's first step at or after each multiple of n is observed.

    Args:
        every_n_steps: Observe every so many optimizer steps (`trainer.global_step`).
        histograms_every_n_steps: Write histograms this often (TensorBoard only); None for never.
        figures_every_n_steps: Draw figures this often, and at the first and last observed step; None for never.
        include: Shell patterns (`encoder.*`) of the layers or parameters to watch; None for all.
        exclude: Shell patterns of those to leave out of these.
    Raises:
        ValueError: If a cadence is not a whole number of at least 1, or a pattern matches nothing.
    """

    #: Of a batch with several optimizer steps, the first alone is observed.
    needs_every_step: ClassVar[bool] = False
    #: Whether each batch is heard of, not only those whose step is observed.
    hears_every_batch: ClassVar[bool] = False
    #: Title -> regular expressions of tags, for TensorBoard's custom scalars.
    charts: ClassVar[dict[str, list[str]]] = {}
    #: Where the channels of layers are, by shell patterns, of those where it is told.
    channel_dims: Mapping[str, int] = MappingProxyType({})

    def __init__(
        self,
        every_n_steps: int = 100,
        histograms_every_n_steps: int | None = 1000,
        figures_every_n_steps: int | None = 20_000,
        include: Sequence[str] | None = None,
        exclude: Sequence[str] = (),
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
        self.include = patterns("include", include)
        self.exclude = patterns("exclude", exclude) or ()
        self._selected: dict[str, bool] = {}
        self._patterns_checked = False
        self._total_steps: float = inf
        self._last_step: int | None = None
        self._restored = False
        self._shared: SharedObservation | None = None

    @property
    def state_key(self) -> str:
        """The name under which a checkpoint has its state: two of a kind are told apart by what they watch."""
        if self.include is None and not self.exclude:
            return super().state_key
        return self._generate_state_key(include=self.include, exclude=self.exclude)

    @property
    def is_urgent(self) -> bool:
        """Whether each observed step is to be judged at once."""
        return False

    @abstractmethod
    def wanted(self, histograms: bool, figures: bool) -> Wanted:
        """Return what the probe shall look at."""

    @abstractmethod
    def measure(self, seen: ObservedStep) -> Statistics:
        """Return what is to be written of an observed step."""

    @abstractmethod
    def draw(self, trainer: Trainer, seen: ObservedStep, statistics: Statistics) -> None:
        """Draw the figures of this step."""

    def publish(
        self, trainer: Trainer, seen: ObservedStep, asked: Asked
    ) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        """Draw the figures that are due; return the scalars and histograms to be written, by tag."""
        statistics = self.measure(seen)
        if asked.figures:
            self.draw(trainer, seen, statistics)
        return _by_tag(statistics), _by_tag(self.histograms(seen)) if asked.histograms else {}

    def conclude(self, trainer: Trainer) -> None:
        """Judge what was seen, once all monitors' part of it is written: this may end the run."""

    def histograms(self, seen: ObservedStep) -> dict[str, dict[str, np.ndarray]]:
        """Return the histograms to be written, by statistic and name."""
        return {}

    def selected(self, seen: dict[str, Seen]) -> dict[str, Seen]:
        """Return what of `seen`, by name, is to be watched."""
        if self.include is None and not self.exclude:
            return seen
        for name in seen:
            if name not in self._selected:
                wanted = self.include is None or any(fnmatchcase(name, pattern) for pattern in self.include)
                self._selected[name] = wanted and not any(fnmatchcase(name, pattern) for pattern in self.exclude)
        return {name: value for name, value in seen.items() if self._selected[name]}

    def check_patterns(self, record: StepRecord, wanted: Wanted) -> None:
        """See at the first observed step with a forward that every pattern matches something.

        Raises:
            ValueError: If one does not.
        """
        if self._patterns_checked or (wanted.activations and not record.called and not record.kinds):
            return
        self._patterns_checked = True
        self._require_matches(record.kinds if wanted.activations else record.shapes)

    def _require_matches(self, names: Iterable[str]) -> None:
        given = {"include": list(self.include or ()), "exclude": list(self.exclude)}
        for option, told in (given | {"channel_dims": dict(self.channel_dims)}).items():
            for pattern in told:
                if not any(fnmatchcase(name, pattern) for name in names):
                    raise ValueError(
                        f"{type(self).__name__}({option}={told!r}): {pattern!r} matches nothing. "
                        f"There are: {', '.join(names) or 'none (of a network in training mode)'}."
                    )

    def forget(self) -> None:
        """Drop what was kept: another run begins."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            self._shared = SharedObservation.join(trainer, self)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._last_step is None or self._last_step >= trainer.global_step:  # also: a new trainer starts at 0 again
            # A checkpoint may be of a step that was being observed, while gradients were accumulated.
            if not (self._restored and self._last_step == trainer.global_step):
                self.forget()
            self._last_step = trainer.global_step - 1
        self._restored = False
        self._total_steps = _total_steps(trainer, pl_module)
        self._patterns_checked, self._selected = False, {}  # it may be another network
        assert self._shared is not None
        self._shared.begin(trainer)

    def read(self) -> None:
        """Take in what was seen and waits to be read."""
        if self._shared is not None:
            self._shared.read()

    def idle_hooks(self, trainer: Trainer) -> list[str]:
        """Return the hooks of a batch in which this monitor has nothing to do unless it hears for all.

        What a subclass adds to a hook stays.
        """
        unused = (Monitor.on_train_batch_end, *(getattr(Monitor, hook) for hook in WHEN_DUE))
        return [
            hook
            for hook in BATCH_HOOKS
            if (mine := getattr(type(self), hook)) in unused or mine is getattr(Callback, hook)
        ]

    def in_passing(self, loss: Tensor | None, steps: int) -> Callable[[Tensor], None] | None:
        """Return what to call with the loss of each step that is not observed; None where the whole hook has to be.

        Args:
            loss: What such a call would have brought of the batch that ends now; None if there would have been none.
            steps: How many calls there will be at most.
        """
        return _nothing if loss is not None and type(self).on_train_batch_end is Monitor.on_train_batch_end else None

    def step_begins(self, trainer: Trainer, step: int) -> None:
        """Ask for the optimizer step that begins now, if it is due."""
        if step < self.next_due:
            return
        assert self._shared is not None
        histograms = self._crosses(self.histograms_every_n_steps, step) and has_tensorboard(trainer.loggers)
        figures = self._figures_due(step) and has_tensorboard(trainer.loggers)
        self._shared.ask(self, Asked(self.wanted(histograms, figures), histograms, figures), step)
        self._last_step = step

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self._shared is not None
        self._shared.epoch_starts(self)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        assert self._shared is not None
        self._shared.batch_starts(self, trainer, pl_module)

    def on_before_zero_grad(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        assert self._shared is not None
        self._shared.before_zero_grad(self)

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self._shared is not None
        self._shared.after_backward(self, trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert self._shared is not None
        self._shared.batch_ends(self, trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.read()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        try:
            self.read()
        except Exception as error:  # what is being raised already is what counts
            log.warning(f"{type(self).__name__}: what was seen last is lost: {error}")
        self._release()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._release()

    def state_dict(self) -> dict[str, Any]:
        self.read()
        return {"last_step": self._last_step}

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy is to have: it is of no trainer, and hears of all hooks."""
        return {name: value for name, value in vars(self).items() if name not in BATCH_HOOKS} | {"_shared": None}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._last_step = state_dict["last_step"]
        self._restored = True

    def _release(self) -> None:
        if self._shared is not None:
            self._shared.release()

    @property
    def next_due(self) -> int:
        """The optimizer step from which on the next one is to be observed."""
        return self._multiple_after_last(self.every_n_steps)

    def _multiple_after_last(self, cadence: int) -> int:
        assert self._last_step is not None
        return (self._last_step // cadence + 1) * cadence

    def _crosses(self, cadence: int | None, step: int) -> bool:
        """Whether a multiple of `cadence` lies after the last observed step, up to and including `step`."""
        if cadence is None:
            return False
        assert self._last_step is not None
        return step // cadence != self._last_step // cadence

    def _figures_due(self, step: int) -> bool:
        if self.figures_every_n_steps is None:
            return False
        assert self._last_step is not None
        is_last = self._last_step + self.every_n_steps < self._total_steps <= step + self.every_n_steps
        return is_last or self._crosses(self.figures_every_n_steps, step)


def _total_steps(trainer: Trainer, pl_module: LightningModule) -> float:
    """Return how many steps the run will have; infinity of a stream whose length nobody knows."""
    batches = trainer.estimated_stepping_batches  # -1 where only `max_steps` ends it, and there is none
    if not pl_module.automatic_optimization:  # each batch may bring a step of each optimizer, which all are counted
        batches = batches * len(trainer.optimizers) if batches > 0 else batches
    return min((float(steps) for steps in (batches, trainer.max_steps) if steps > 0), default=inf)


def _nothing(loss: Tensor) -> None:
    pass


def _by_tag(values: dict[str, dict[str, Seen]]) -> dict[str, Seen]:
    return {f"{statistic}/{name}": value for statistic, of in values.items() for name, value in of.items()}


def finite_or_left_out(scalars: dict[str, float]) -> dict[str, float]:
    """Drop ratios that do not exist: a parameter that does not vary has no scale to compare with."""
    if isfinite(sum(scalars.values())):
        return scalars
    return {name: value for name, value in scalars.items() if isfinite(value)}
