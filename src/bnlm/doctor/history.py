"""What was seen of a run, bounded whatever its length."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Sequence, Set
from dataclasses import replace
from itertools import pairwise

import numpy as np

from bnlm.doctor.facts import Facts
from bnlm.doctor.loss_course import LossCourse
from bnlm.doctor.observation import Observation, StatisticsGap
from bnlm.doctor.reference_loss import ReferenceLoss

#: Observed steps that a verdict over a window looks at.
WINDOW = 20
#: Steps after which those of AdamW are no longer large for it is young.
FIRST_OVER = 10
#: What counts as the start, in observed steps.
EARLY_OBSERVED = 10
#: Steps that a warm-up of the learning rate may take before the lack of progress is held against it.
WARM_UP_STEPS = 2000
#: Steps, or the share of a shorter run, after which it is late.
LONG, LONG_SHARE = 2000, 0.9
#: Times the rate of the last observed step that one is which has leaped, and steps in which that shows.
LEAP_OF_RATE, SOON_AFTER = 3.0, 50
#: Share of the first losses below which nothing may be left to be learned of a batch.
LITTLE = 0.1


class History:
    """A run so far: its first observation, the last ones, and the course of its loss."""

    def __init__(self, facts: Facts, total_steps: float = math.inf) -> None:
        self.facts = facts
        self.total_steps = total_steps
        self.first: Observation | None = None
        self.recent: deque[Observation] = deque(maxlen=WINDOW)
        self.observed = 0
        self.reference = ReferenceLoss()
        self.losses = LossCourse(self.reference)
        self.early_norms: list[float] = []
        self.validations: list[tuple[float, float]] = []
        self.ungraded_since: dict[str, tuple[int, int]] = {}
        self.blank = ""  # path of the first layer while nothing but zeros comes to it
        self.dropouts: dict[str, float] = {}  # by module path, the p
        self.outputs: set[str] = set()  # names of sigmoids that are the last before the loss
        self._aside: set[str] = set()
        self.turns: set[str] = set()  # names of parameters that have a gradient in some steps and none in others
        self._with_spread = [name for name, one in facts.parameters.items() if math.prod(one.shape) >= 2]
        self._hidden = [name for name, one in facts.parameters.items() if one.role == "hidden" and one.std > 0]
        self.largest_step = -math.inf  # log10 of update:data of the typical hidden weight, after the first steps
        self.overflows_allowed = 0
        self.steps_with_left_gradients = 0  # observed ones in a row, see the callback's `LeftGradients`
        self.clip = 0.0  # the norm that gradients are clipped to; 0 for none
        self._reached_lr_share = 0.0
        self._medians: dict[tuple[str, int], dict[str, float]] = {}
        self.gaps: deque[StatisticsGap] = deque(maxlen=3)
        self.untouched: list[str] | None = None  # BatchNorms that no batch has come to; None while that is not known
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
    def is_late(self) -> bool:
        """Whether most of the run is over, or so much of a long one that more should have come of it."""
        return self.losses.steps >= min(LONG, max(100, LONG_SHARE * self.total_steps))

    @property
    def warms_up(self) -> bool:
        """Whether the learning rate has yet to come near its highest, and the run is young enough to wait for that."""
        return self._reached_lr_share < 0.1 and self.losses.steps < min(WARM_UP_STEPS, self.total_steps / 2)

    @property
    def only_warms_up(self) -> bool:
        """Whether the learning rate rises, and has not come near its highest."""
        shares = [observation.lr_share for observation in self.recent]
        return self._reached_lr_share < 0.1 and shares[-1] == max(shares) > shares[0]

    def raised_rate(self, step: int) -> Observation | None:
        """Return the observation at which the learning rate was found to have leaped shortly before this step."""
        for before, after in pairwise(self.recent):
            warms_up = before is self.first  # it may begin at next to nothing
            if not warms_up and after.lr_rise >= LEAP_OF_RATE and before.step <= step <= after.step + SOON_AFTER:
                return after
        return None

    def add(self, observation: Observation) -> None:
        """Take in an observed step; of one that waited not, the losses up to its own are to be taken in before."""
        self._medians.clear()
        loss = self.losses.last[-1] if self.losses.last else None
        if observation.output is not None and not self.reference.is_of_the_loss(observation.output, loss):
            observation = replace(observation, output=None)
        observation = self._without_asides(observation)
        if self.first is None:
            self.first = observation
            self.facts.take_order(observation.heard.normalized, observation.of("gradient_std"))
            self.blank = observation.heard.blank
            self.reference.output = observation.output
        self.recent.append(observation)
        if observation.output is not None:
            self.blank = observation.heard.blank and self.blank
        self.outputs |= observation.heard.outputs
        self.dropouts |= observation.heard.dropouts
        self._reached_lr_share = max(self._reached_lr_share, observation.lr_share)
        self.observed += 1
        if observation.output is not None:
            self.reference.add(observation.output, loss)
        moved = observation.of("update_to_data")
        if observation.step >= FIRST_OVER and (hidden := [moved[name] for name in self._hidden if name in moved]):
            self.largest_step = max(self.largest_step, statistics.median(hidden))
        norm = observation.gradient_norm
        if norm is not None and math.isfinite(norm) and len(self.early_norms) < EARLY_OBSERVED:
            self.early_norms.append(norm)
        graded = {name for name, value in observation.of("gradient_std").items() if value != 0}
        graded |= observation.of("gradient_alike").keys()
        if not graded and self.losses.smooth < LITTLE * self.losses.first:
            return  # a loss of zero, as of triplets that are all far apart, has no gradient
        for name in self.ungraded_since.keys() & graded:
            del self.ungraded_since[name]
        for name in self._with_spread:
            if name not in graded and name not in self.turns:
                since, times = self.ungraded_since.get(name, (observation.step, 0))
                self.ungraded_since[name] = since, times + 1

    def take_turns(self, names: Set[str]) -> None:
        """Take in that a gradient came to these parameters between observed steps at which they had none."""
        self.turns.update(names)
        for name in names:
            self.ungraded_since.pop(name, None)

    def _without_asides(self, observation: Observation) -> Observation:
        """Return an observation without what is no layer, such as a hinge, which is zero where it is met."""
        self._aside |= observation.heard.aside
        if not self._aside:
            return observation
        units = {layer: share for layer, share in observation.of("dead_units").items() if layer not in self._aside}
        return replace(
            observation,
            kinds={layer: kind for layer, kind in observation.kinds.items() if layer not in self._aside},
            statistics={**observation.statistics, "dead_units": units},
        )

    def median(self, statistic: str, least: int = 4) -> dict[str, float]:
        """Return the median over the window of each layer's or parameter's statistic, where seen often enough."""
        if (statistic, least) not in self._medians:  # several rules ask
            seen = [of for o in self.recent if o.step >= 10 and (of := o.statistics.get(statistic))]
            medians = _medians(seen, least)
            self._medians[statistic, least] = medians
        return self._medians[statistic, least]

    def fed_with_zeros(self) -> set[str]:
        """Return the weights that have no gradient now though the bias beside them has: only zeros come in."""
        stds = self.recent[-1].of("gradient_std") if self.recent else {}
        weights = (name for name, std in stds.items() if std == 0 and name.endswith(".weight"))
        return {name for name in weights if stds.get(name.removesuffix("weight") + "bias", 0.0) > 0}

    def usually_graded(self, name: str) -> bool:
        """Return whether a parameter had a gradient at most of the last observed steps."""
        return 2 * sum(o.of("gradient_std").get(name, 0) != 0 for o in self.recent) > len(self.recent)


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
