"""Observed steps that wait to be read: several small ones are reduced, written and judged together."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from threading import RLock
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple
from weakref import ref

import numpy as np
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from bnlm.callbacks.observed_step import ObservedStep, observed_steps
from bnlm.callbacks.rank_pool import pool_over_ranks
from bnlm.callbacks.tensorboard import Values, write_layout, write_steps
from bnlm.probe import StepProbe, Wanted, records_of

if TYPE_CHECKING:
    from bnlm.callbacks.monitor import Monitor

#: Small steps that were observed wait for each other to be read: code that runs again at once takes half the time.
TOGETHER = 10
#: Seconds that what was seen waits at most.
LONGEST_WAIT = 5.0
#: The observed steps at the start that do not wait.
PROMPT = 21


class Asked(NamedTuple):
    """What a monitor wants of a step."""

    wanted: Wanted
    histograms: bool
    figures: bool


@dataclass
class _Unread:
    """A step that was observed, and what was seen of it once that is reduced."""

    step: int
    asked: dict[Monitor, Asked]
    probe: StepProbe
    since: float
    seen: ObservedStep | None = None


class UnreadSteps:
    """What the monitors of one trainer have seen and not yet read.

    Several small steps are read together, large ones and the first ones by themselves; in any case before a validation,
    a checkpoint, the end, and whenever somebody asks for findings.

    Args:
        trainer: To whose loggers is written.
        members: The monitors; the list may change.
    """

    def __init__(self, trainer: Trainer, members: Sequence[Monitor]) -> None:
        self._trainer = ref(trainer)  # it is the key under which the observation is kept
        self._members = members
        self._waiting: deque[_Unread] = deque()
        self._layout_written = False
        self._may_wait = False
        self._observed = 0
        self._observed_at = -inf
        self._next_at = inf
        self._lock = RLock()  # findings may be asked for from another thread

    def begin(self, trainer: Trainer) -> None:
        """See whether steps may wait at all: training starts."""
        # Processes have to pool what they saw at the same time, and loggers other than TensorBoard want it in order.
        in_order = all(isinstance(logger, TensorBoardLogger) for logger in trainer.loggers)
        self._may_wait = trainer.world_size == 1 and in_order and not any(m.is_urgent for m in self._members)
        self._observed = 0

    def add(self, step: int, asked: dict[Monitor, Asked], probe: StepProbe) -> None:
        """Take in a step that was observed."""
        now = monotonic()
        self._next_at = now + (now - self._observed_at)
        self._observed_at = now
        with self._lock:
            self._waiting.append(_Unread(step, asked, probe, now))
        self._observed += 1

    def clear(self) -> None:
        """Forget what waits."""
        self._waiting.clear()

    def can_wait(self) -> bool:
        """Return whether what was seen may wait until the next observed step is over."""
        last = self._waiting[-1]
        return (
            self._may_wait
            and self._observed > PROMPT
            and len(self._waiting) < TOGETHER
            and self._next_at - self._waiting[0].since < LONGEST_WAIT
            and last.probe.is_small
            and not any(asked.histograms or asked.figures for asked in last.asked.values())
        )

    def read(self) -> None:
        """Publish what was seen and waits, and have it judged."""
        if self._waiting:  # else the trainer may be gone
            with self._lock:
                self._read()

    def _read(self) -> None:
        trainer = self._trainer()
        assert trainer is not None
        concerned: dict[Monitor, None] = {}
        self._see(trainer, [each for each in self._waiting if each.seen is None])
        written: list[Values] = []
        try:
            while self._waiting:
                unread = self._waiting.popleft()  # should publishing it fail, the others are still there
                if trainer.is_global_zero:
                    written.append(self._published(trainer, unread))
                    concerned |= dict.fromkeys(unread.asked)
        finally:
            write_steps(trainer.loggers, written)
        for member in concerned:
            member.conclude(trainer)

    def _see(self, trainer: Trainer, unread: list[_Unread]) -> None:
        """Reduce what was seen: all steps before the first is published, since code that runs again is faster."""
        records = records_of([each.probe for each in unread])
        for each, record in zip(unread, records, strict=True):
            if trainer.world_size > 1:
                pool_over_ranks(record, trainer.world_size)
            for member, asked in each.asked.items():
                member.check_patterns(record, asked.wanted)
        if trainer.is_global_zero:
            for each, seen in zip(unread, observed_steps(records, [each.step for each in unread]), strict=True):
                each.seen = seen

    def _published(self, trainer: Trainer, unread: _Unread) -> Values:
        """Have the monitors draw, and return what is to be written."""
        seen = unread.seen
        assert seen is not None
        if not self._layout_written:
            self._layout_written = True
            write_layout(trainer.loggers, {title: tags for m in self._members for title, tags in m.charts.items()})
        scalars: dict[str, float] = {}
        histograms: dict[str, np.ndarray] = {}
        for member, asked in unread.asked.items():
            more_scalars, more_histograms = member.publish(trainer, seen, asked)
            scalars |= more_scalars
            histograms |= more_histograms
        return Values(unread.step, scalars, histograms)
