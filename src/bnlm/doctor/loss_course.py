"""The course of the loss: where it began, how far it fell, whether it rises, and its spikes."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Sequence
from itertools import islice

from bnlm.doctor.reference_loss import ReferenceLoss
from bnlm.doctor.trend import falls, is_below, rises

#: Losses of single steps that are kept.
LOSSES = 2000
#: What counts as the start.
FIRST_LOSSES, EARLY_LOSSES = 4, 20
#: Weight of a loss in the running mean of them; no less than 1 / EARLY_LOSSES, from where on it is constant.
SMOOTHING = 0.05
#: Share of the best that a rise has to exceed, and of the reference; twice that of how large a loss was of which no
#: reference is known.
RISE_OF_BEST, RISE = 0.3, 0.15
#: R14: standard errors of the running mean that the loss may rise by, from the lowest that this has been.
SMOOTH_NOISE = 5.0
#: Losses that tell whether those from a leap on stay above what was before it, and how many times the reference it is
#: at most.
LASTS, HIGHEST_LEAP = 20, 25.0
#: R07: standard errors of a batch's loss that a loss may lie higher. In batches of one or two, single examples do.
BATCH_NOISE = 6.0


#: Share of the mean of the first few losses that the very first is where the steps between have raised it.
RAISED = 0.6


class LossCourse:
    """The losses of the steps that one was given for, bounded however many these are.

    Attributes:
        last: The last ones, finite ones alone.
        early: Those of the first steps.
        steps: Steps that a loss was given for, and `non_finite` those of them whose loss was nan or infinite.
        smooth: Running mean, `best` the lowest it has been, `worst_rise` how many times that it is while it is far
            above, and `steps_above` for how many steps it has been.
        spikes: Steps whose loss was far above those before, counted from 1.
    """

    def __init__(self, reference: ReferenceLoss) -> None:
        self._reference = reference
        self.last: deque[float] = deque(maxlen=LOSSES)
        self.early: list[float] = []
        self.steps = 0
        self.non_finite = 0
        self.smooth = math.nan
        self.best = math.inf
        self.worst_rise = 0.0
        self.steps_above = 0
        self.spikes: deque[int] = deque(maxlen=100)
        self._improves: bool | None = None

    @property
    def first(self) -> float:
        """The mean of the first losses; the very first where steps that were too large raised it; nan without any."""
        mean = self._reference.first_loss
        return self.early[0] if self.early and 0 < self.early[0] < RAISED * mean else mean

    @property
    def scale(self) -> float:
        """What a change of the loss is held against: the reference, or else how large it was or how far it has come."""
        if self._reference.is_known or not self.early:
            return abs(self._reference.loss)
        return max(abs(self.first), self.first - min(self.best, self.first))

    @property
    def least_rise(self) -> float:
        """What a rise of the loss has to exceed. A loss that nothing is known of may have single large parts."""
        if not self._reference.is_known:
            return 2 * RISE * self.scale
        return max(RISE * self.scale, SMOOTH_NOISE * math.sqrt(SMOOTHING / 2) * self._reference.batch_error)

    @property
    def has_risen(self) -> bool:
        """Whether the loss is above its best by half of what would be held against it alone."""
        return self.smooth - self.best > max(RISE_OF_BEST * abs(self.best), self.least_rise) / 2

    def add(self, losses: Sequence[float]) -> None:
        """Take in the losses of steps, observed or not, in their order."""
        self._improves = None
        scale, least = self.scale, self.least_rise
        if len(self.last) >= EARLY_LOSSES and self._without_spikes(losses, scale):
            self._follow(losses, least)
            return
        for loss in losses:
            self.steps += 1
            if not math.isfinite(loss):
                self.non_finite += 1
                continue
            if len(self._reference.first_losses) < FIRST_LOSSES:
                self._reference.first_losses.append(loss)
                scale, least = self.scale, self.least_rise
            if len(self.early) < EARLY_LOSSES:
                self.early.append(loss)
            if len(self.last) >= 10 and loss > self._height_of_a_spike(scale):
                self.spikes.append(self.steps)
            self.last.append(loss)
            # A running mean whose weights are those of a plain mean at first: the first loss alone is no start.
            weight = max(SMOOTHING, 1 / len(self.last))
            self.smooth = loss if math.isnan(self.smooth) else self.smooth + weight * (loss - self.smooth)
            if self.steps >= 10:
                self.best = min(self.best, self.smooth)
                risen = self.smooth - self.best > max(RISE_OF_BEST * abs(self.best), least)
                self.steps_above = self.steps_above + 1 if risen else 0
                self.worst_rise = self.smooth / self.best if risen and self.best > 0 else 0.0

    def _follow(self, losses: Sequence[float], least: float) -> None:
        """Do the same with losses that can be nothing but followed: there is one of each step of the run."""
        smooth, best, above = self.smooth, self.best, self.steps_above
        limit: float | None = None  # of what is no rise; a loss that falls needs none
        for loss in losses:
            smooth += SMOOTHING * (loss - smooth)
            if smooth < best:
                best, above, limit = smooth, 0, None
                continue
            if limit is None:
                limit = best + max(RISE_OF_BEST * abs(best), least)
            above = above + 1 if smooth > limit else 0
        self.smooth, self.best, self.steps_above = smooth, best, above
        self.worst_rise = smooth / best if above and best > 0 else 0.0
        self.last.extend(losses)
        self.steps += len(losses)

    def _height_of_a_spike(self, scale: float) -> float:
        """Return above what the next loss is a spike, from the ten before it."""
        last = sorted(self.tail(10))
        typical = (last[4] + last[5]) / 2  # the median
        # What a loss near 0 has no other scale for; where examples are few, single ones stand out.
        noise = BATCH_NOISE * self._reference.batch_error if self._reference.is_known else 3 * (last[8] - last[1])
        return typical + 2 * abs(typical) + scale + noise  # a likelihood's loss goes below 0

    def _without_spikes(self, losses: Sequence[float], scale: float) -> bool:
        """Return whether these losses are so close to each other that none can be a spike, nan or infinite."""
        if not losses or not math.isfinite(sum(losses)):
            return False
        # The height of a spike falls with the median of ten, which is no lower than the lowest.
        return max(losses) <= 3 * max(min(*losses, *self.tail(10)), 0.0) + scale

    def lasting_leap(self) -> int:
        """Return the step at which the loss leaped for a while, of those around which its rise began; else 0.

        As where the labels are others from then on. What steps too large bring about grows, or comes back.
        """
        losses, gone = list(self.last), self.steps - len(self.last)
        begin = max(len(losses) - self.steps_above - 2 * LASTS, 0)
        places = range(begin, min(begin + 3 * LASTS, len(losses)))
        return next((gone + at + 1 for at in places if self._leaps_for_good(losses, at)), 0)

    def first_spike_lasts(self) -> bool:
        """Return whether the losses do not come back for a while from the first spike, if that is known."""
        at = self.spikes[0] - 1 - (self.steps - len(self.last)) if self.spikes and not self.non_finite else -1
        return len(self.spikes) < (self.spikes.maxlen or 0) and self._leaps_for_good(list(self.last), at)

    def _leaps_for_good(self, losses: Sequence[float], at: int) -> bool:
        """Return whether all losses from this place on are far above all before, by no more than labels make them."""
        before, after = losses[max(at - LASTS // 2, 0) : max(at, 0)], losses[max(at, 0) : at + LASTS]
        if len(before) < LASTS // 2 or len(after) < LASTS // 2:
            return False
        highest, leap, rise = max(before), after[0], statistics.median(after) - statistics.median(before)
        apart = min(after) > highest + RISE * self.scale and leap - highest > rise / 2
        return apart and max(after) < 3 * leap < 3 * HIGHEST_LEAP * self.scale

    def tail(self, steps: int) -> list[float]:
        """Return the last losses."""
        return list(islice(reversed(self.last), steps))[::-1]

    def recent(self, steps: int) -> float:
        """Return the mean of the last losses; nan without any."""
        tail = self.tail(steps)
        return statistics.fmean(tail) if tail else math.nan

    def improves(self) -> bool:
        """Return whether the loss is clearly below its start, beyond its noise; also where no loss is known."""
        if self._improves is None:
            tail = self.tail(50)
            starts = (self._reference.first_losses, self.early)
            self._improves = len(tail) < 2 or any(is_below(start, tail) for start in starts)
        return self._improves

    def falls(self, steps: int) -> bool:
        """Return whether the last losses fall, see `trend.falls`."""
        return falls(self.tail(steps))

    def rises(self, t: float = 4.0) -> bool:
        """Return whether the losses that are kept rise, see `trend.rises`."""
        return rises(self.tail(LOSSES), t)
