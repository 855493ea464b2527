"""What was seen of a run, bounded whatever its length."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

import numpy as np

from bnlm.doctor.class_frequencies import loss_of_frequencies
from bnlm.doctor.facts import Facts
from bnlm.doctor.observation import Observation, Output, StatisticsGap
from bnlm.doctor.trend import falls, is_below

#: Observed steps that a verdict over a window looks at.
WINDOW = 20
#: Losses of single steps that are kept.
LOSSES = 2000
#: What counts as the start: losses of steps, and observed steps.
EARLY_LOSSES, EARLY_OBSERVED = 20, 10
#: Weight of a loss in the running mean of them; no less than 1 / EARLY_LOSSES, from where on it is constant.
SMOOTHING = 0.05
#: Steps that a warm-up of the learning rate may take before the lack of progress is held against it.
WARM_UP_STEPS = 2000
#: Steps, or the share of a shorter run, after which it is late.
LONG, LONG_SHARE = 2000, 0.9
#: Share of the loss of an output of zero, of a regression that does not start at zero.
KNOWS_THE_MEAN = 0.5
#: How much the first loss may differ from that of the first call of a loss function, to be that and nothing else.
SAME_LOSS = 0.05
#: How near the loss of a step is to a multiple of what goes into it, to be that multiple; of one that is written out.
SAME_MULTIPLE, SAME_WRITTEN = 1e-3, 1e-2
#: Share of ln(classes) below which almost all targets are of one class: what is rare is learned late.
RARE = 0.5
#: Share of the first losses below which nothing may be left to be learned of a batch.
LITTLE = 0.1
#: Share of the reference, or twice that of how large a loss was of which none is known, that a rise has to exceed.
RISE = 0.15
#: R07: standard errors of a batch's loss that a loss may lie higher. In batches of one or two, single examples do.
BATCH_NOISE = 6.0


class History:
    """A run so far: its first observation, the last ones, and the loss of every step that a loss was given for."""

    def __init__(self, facts: Facts, total_steps: float = math.inf) -> None:
        self.facts = facts
        self.total_steps = total_steps
        self.first: Observation | None = None
        self.recent: deque[Observation] = deque(maxlen=WINDOW)
        self.observed = 0
        self.losses: deque[float] = deque(maxlen=LOSSES)
        self.first_losses: list[float] = []
        self.early_losses: list[float] = []
        self.early_norms: list[float] = []
        self.references: deque[float] = deque(maxlen=WINDOW)  # the last ones: targets may move as a network learns
        self._constants: deque[float] = deque(maxlen=WINDOW)  # beside each: of a regression the best constant
        self._counts = np.zeros(0)  # of the targets of each class
        self.steps_with_loss = 0
        self.non_finite_losses = 0
        self.smooth = math.nan
        self.best = math.inf
        self.worst_rise = 0.0
        self.steps_above = 0
        self.spikes: deque[int] = deque(maxlen=100)
        self._errors: deque[float] = deque(maxlen=WINDOW)  # standard errors of a batch's loss
        self.validations: list[tuple[float, float]] = []
        self.ungraded_since: dict[str, tuple[int, int]] = {}
        self._with_spread = [name for name, one in facts.parameters.items() if math.prod(one.shape) >= 2]
        self.overflows_allowed = 0
        self.steps_with_left_gradients = 0  # observed ones in a row, see the callback's `LeftGradients`
        self.clip = 0.0  # the norm that gradients are clipped to; 0 for none
        self._reached_lr_share = 0.0
        self._medians: dict[tuple[str, int], dict[str, float]] = {}
        self._improves: bool | None = None
        self._believes_written: bool | None = None
        self.gaps: deque[StatisticsGap] = deque(maxlen=3)
        self.repeats = True  # whether examples have been seen before

    @property
    def step(self) -> int:
        return self.recent[-1].step if self.recent else 0

    @property
    def warm(self) -> bool:
        """Whether the first steps, of which no verdict is taken, are over."""
        early = 20 if math.isinf(self.total_steps) else max(20, 0.05 * self.total_steps)
        return self.step >= min(early, 1000)

    @property
    def reference(self) -> float:
        """The loss of a network that knows nothing, or the first losses where that is not known; nan without any.

        Of a regression that starts near the mean of its targets, the loss of that mean.
        """
        if not self.references:
            return self.first_loss
        reference = statistics.fmean(self.references) * self.loss_weight
        return self.loss_of_a_constant if self.first_loss < KNOWS_THE_MEAN * reference else reference

    @property
    def loss_of_a_constant(self) -> float:
        """The loss of the best constant output, of classes that of chance; nan where that is not known."""
        return statistics.fmean(self._constants) * self.loss_weight if self._constants else math.nan

    @property
    def is_late(self) -> bool:
        """Whether most of the run is over, or so much of a long one that more should have come of it."""
        return self.steps_with_loss >= min(LONG, max(100, LONG_SHARE * self.total_steps))

    @property
    def loss_weight(self) -> float:
        """What one unit of the loss function counts in the loss of a step, where that is another order of magnitude.

        A loss may be a sum over the examples, or weighted; a small factor is a penalty's, or of further micro-batches.
        """
        output = self.first.output if self.first is not None else None
        if output is None or not self.first_losses or not output.loss > 0:
            return 1.0
        weight = self.first_losses[0] / output.loss
        if any(math.isclose(weight, scale, rel_tol=SAME_MULTIPLE) for scale in output.scales or (0.5, 2.0)):
            return weight
        return weight if 0 < weight < 0.2 or 5 < weight < math.inf else 1.0

    @property
    def has_other_terms(self) -> bool:
        """Whether the first step's loss was not that of the loss function alone, times a weight."""
        output = self.first.output if self.first is not None else None
        if output is None or not self.first_losses:
            return False
        return abs(self.first_losses[0] - self.loss_weight * output.loss) > SAME_LOSS * abs(self.first_losses[0])

    @property
    def loss_of_frequencies(self) -> float:
        """The loss of a network that has learned how frequent each class is, and nothing else.

        nan where that is not known well, where the loss is not this alone, and of classes that are almost all of one
        kind.
        """
        output = self.first.output if self.first is not None else None
        if output is None or not self.first_losses or self.has_other_terms:
            return math.nan
        loss = loss_of_frequencies(self._counts, output.kind == "binary_cross_entropy")
        return self.loss_weight * loss if loss > RARE * output.reference else math.nan

    @property
    def warms_up(self) -> bool:
        """Whether the learning rate has yet to come near its highest, and the run is young enough to wait for that."""
        return self._reached_lr_share < 0.1 and self.steps_with_loss < min(WARM_UP_STEPS, self.total_steps / 2)

    @property
    def scale(self) -> float:
        """What a change of the loss is held against: the reference, or else how large it was or how far it has come."""
        if self.references or not self.first_losses:
            return abs(self.reference)
        return max(abs(self.first_loss), self.first_loss - min(self.best, self.first_loss))

    @property
    def least_rise(self) -> float:
        """What a rise of the loss has to exceed. A loss that nothing is known of may have single large parts."""
        return (1 if self.references else 2) * RISE * self.scale

    @property
    def has_risen(self) -> bool:
        """Whether the loss is above its best by half of what would be held against it alone."""
        return self.smooth - self.best > max(0.15 * abs(self.best), self.least_rise / 2)

    @property
    def wants_references(self) -> bool:
        """Whether a further batch tells more: of squares knowing nothing costs something else in each batch.

        And where the loss has other terms, only a batch tells how much of it is of the loss function.
        """
        output = self.recent[-1].output if self.recent else None
        moves = output is not None and (output.kind == "regression" or self.has_other_terms)
        return len(self.references) < WINDOW or moves

    @property
    def first_loss(self) -> float:
        return statistics.fmean(self.first_losses) if self.first_losses else math.nan

    def add(self, observation: Observation) -> None:
        """Take in an observed step; of one that waited not, the losses up to its own are to be taken in before."""
        self._medians.clear()
        if observation.output is not None and not self._is_loss(observation.output):
            observation = replace(observation, output=None)
        if self.first is None:
            self.first = observation
        self.recent.append(observation)
        self._reached_lr_share = max(self._reached_lr_share, observation.lr_share)
        self.observed += 1
        output = observation.output
        # The targets' mean square in one batch strays far from the true one; of classes it is the same each time.
        if output is not None and math.isfinite(output.reference):
            self.references.append(output.reference)
            constant = output.constant if math.isfinite(output.constant) else output.reference
            self._constants.append(min(constant, output.reference))
            most = abs(output.reference)  # also of one example, which has no standard error
            if len(self._counts) != len(output.counts):
                self._counts = np.zeros(len(output.counts))
            self._counts += output.counts
            self._errors.append(min(output.loss_error, most) if math.isfinite(output.loss_error) else most)
        norm = observation.gradient_norm
        if norm is not None and math.isfinite(norm) and len(self.early_norms) < EARLY_OBSERVED:
            self.early_norms.append(norm)
        graded = {name for name, value in observation.of("gradient_std").items() if value != 0}
        graded |= observation.of("gradient_alike").keys()
        if not graded and self.smooth < LITTLE * self.first_loss:
            return  # a loss of zero, as of triplets that are all far apart, has no gradient
        for name in self.ungraded_since.keys() & graded:
            del self.ungraded_since[name]
        for name in self._with_spread:
            if name not in graded:
                since, times = self.ungraded_since.get(name, (observation.step, 0))
                self.ungraded_since[name] = since, times + 1

    def _is_loss(self, output: Output) -> bool:
        """Return whether what went into the loss is the loss, which of one that is written out the first shows."""
        if output.scales and self._believes_written is None and self.losses:
            multiples = (scale * output.loss for scale in output.scales)
            self._believes_written = any(math.isclose(self.losses[-1], m, rel_tol=SAME_WRITTEN) for m in multiples)
        return not output.scales or bool(self._believes_written)

    def add_losses(self, losses: Sequence[float]) -> None:
        """Take in the losses of steps, observed or not, in their order."""
        self._improves = None
        scale, least = self.scale, self.least_rise
        if len(self.losses) >= EARLY_LOSSES and self._without_spikes(losses, scale):
            self._follow(losses, least)
            return
        for loss in losses:
            self.steps_with_loss += 1
            if not math.isfinite(loss):
                self.non_finite_losses += 1
                continue
            if len(self.first_losses) < 4:
                self.first_losses.append(loss)
                scale, least = self.scale, self.least_rise
            if len(self.early_losses) < EARLY_LOSSES:
                self.early_losses.append(loss)
            if len(self.losses) >= 10 and loss > self._height_of_a_spike(scale):
                self.spikes.append(self.steps_with_loss)
            self.losses.append(loss)
            # A running mean whose weights are those of a plain mean at first: the first loss alone is no start.
            weight = max(SMOOTHING, 1 / len(self.losses))
            self.smooth = loss if math.isnan(self.smooth) else self.smooth + weight * (loss - self.smooth)
            if self.steps_with_loss >= 10:
                self.best = min(self.best, self.smooth)
                risen = self.smooth - self.best > max(0.3 * abs(self.best), least)
                self.steps_above = self.steps_above + 1 if risen else 0
                self.worst_rise = self.smooth / self.best if risen and self.best > 0 else 0.0

    def _follow(self, losses: Sequence[float], least: float) -> None:
        """Do the same with losses that can be nothing but followed: there is one of each step of the run."""
        smooth, best, above = self.smooth, self.best, self.steps_above
        limit = best + max(0.3 * abs(best), least)
        for loss in losses:
            smooth += SMOOTHING * (loss - smooth)
            if smooth < best:
                best = smooth
                limit = best + max(0.3 * abs(best), least)
            above = above + 1 if smooth > limit else 0
        self.smooth, self.best, self.steps_above = smooth, best, above
        self.worst_rise = smooth / best if above and best > 0 else 0.0
        self.losses.extend(losses)
        self.steps_with_loss += len(losses)

    def _height_of_a_spike(self, scale: float) -> float:
        """Return above what the next loss is a spike, from the ten before it."""
        last = sorted(self.last_losses(10))
        typical = (last[4] + last[5]) / 2  # the median
        # What a loss near 0 has no other scale for; where examples are few, single ones stand out.
        noise = 3 * (last[8] - last[1])
        if self.references:
            noise = BATCH_NOISE * statistics.fmean(self._errors) * self.loss_weight
        return typical + 2 * abs(typical) + scale + noise  # a likelihood's loss goes below 0

    def _without_spikes(self, losses: Sequence[float], scale: float) -> bool:
        """Return whether these losses are so close to each other that none can be a spike, nan or infinite."""
        if not losses or not math.isfinite(sum(losses)):
            return False
        # The height of a spike falls with the median of ten, which is no lower than the lowest.
        return max(losses) <= 3 * max(min(*losses, *self.last_losses(10)), 0.0) + scale

    def median(self, statistic: str, least: int = 4) -> dict[str, float]:
        """Return the median over the window of each layer's or parameter's statistic, where seen often enough."""
        if (statistic, least) not in self._medians:  # several rules ask
            seen = [of for o in self.recent if o.step >= 10 and (of := o.statistics.get(statistic))]
            medians = _medians(seen, least)
            self._medians[statistic, least] = medians
        return self._medians[statistic, least]

    def last_losses(self, steps: int) -> list[float]:
        """Return the last losses."""
        return list(islice(reversed(self.losses), steps))[::-1]

    def recent_loss(self, steps: int) -> float:
        """Return the mean of the last losses; nan without any."""
        last = self.last_losses(steps)
        return statistics.fmean(last) if last else math.nan

    def fed_with_zeros(self) -> set[str]:
        """Return the weights that have no gradient now though the bias beside them has: only zeros come in."""
        stds = self.recent[-1].of("gradient_std") if self.recent else {}
        weights = (name for name, std in stds.items() if std == 0 and name.endswith(".weight"))
        return {name for name in weights if stds.get(name.removesuffix("weight") + "bias", 0.0) > 0}

    def usually_graded(self, name: str) -> bool:
        """Return whether a parameter had a gradient at most of the last observed steps."""
        return 2 * sum(o.of("gradient_std").get(name, 0) != 0 for o in self.recent) > len(self.recent)

    def improves(self) -> bool:
        """Return whether the loss is clearly below its start, beyond its noise; also where no loss is known."""
        if self._improves is None:
            self._improves = self._has_improved()
        return self._improves

    def _has_improved(self) -> bool:
        last = self.last_losses(50)
        return len(last) < 2 or any(is_below(start, last) for start in (self.first_losses, self.early_losses))

    def falls(self, steps: int) -> bool:
        """Return whether the last losses fall, see `trend.falls`."""
        return falls(self.last_losses(steps))


def _medians(seen: Sequence[dict[str, float]], least: int) -> dict[str, float]:
    """Return each name's median over the dictionaries, where it is in `least` of them."""
    if not seen:
        return {}
    names = list(seen[0])
    if all(list(of) == names for of in seen):  # as almost always
        if len(seen) < least:
            return {}
        values = np.array([list(of.values()) for of in seen])
        values.sort(axis=0)
        middle = values[(len(seen) - 1) // 2] / 2 + values[len(seen) // 2] / 2
        return dict(zip(names, middle.tolist(), strict=True))
    by_name: dict[str, list[float]] = {}
    for of in seen:
        for name, value in of.items():
            by_name.setdefault(name, []).append(value)
    return {name: statistics.median(values) for name, values in by_name.items() if len(values) >= least}
