"""What a network that knows nothing loses: what a loss is compared with."""

from __future__ import annotations

import math
import statistics
from collections import deque
from functools import lru_cache

import numpy as np

from bnlm.doctor.class_frequencies import loss_of_frequencies
from bnlm.doctor.observation import Output

#: Batches whose references are kept.
WINDOW = 20
#: Share of the loss of an output of zero, of a regression that does not start at zero.
KNOWS_THE_MEAN = 0.5
#: How much the first loss may differ from that of the first call of a loss function, to be that and nothing else.
SAME_LOSS = 0.05
#: How near the loss of a step is to a multiple of what goes into it, to be that multiple; of one that is written out.
SAME_MULTIPLE, SAME_WRITTEN = 1e-3, 1e-2
#: Observed steps that tell whether it stays that multiple.
FEW, SEVERAL = 3, 10
#: Targets and batches that tell whether each batch is of one class; share of targets, and of batches, that are.
SEVERAL_TARGETS, SEVERAL_BATCHES, ONE_CLASS, MOST_BATCHES = 8, 5, 0.9, 0.8
#: Share of ln(classes) below which almost all targets are of one class: what is rare is learned late.
RARE = 0.5


class ReferenceLoss:
    """What knowing nothing costs in a run, from what goes into its loss function and from its first losses.

    Attributes:
        first_losses: Of the first steps, no more than four.
        output: Of the first observed step, None where it has none.
    """

    def __init__(self) -> None:
        self.first_losses: list[float] = []
        self.output: Output | None = None
        self._last: deque[float] = deque(maxlen=WINDOW)  # targets may move as a network learns
        self._constants: deque[float] = deque(maxlen=WINDOW)  # beside each: of a regression the best constant
        self._errors: deque[float] = deque(maxlen=WINDOW)  # standard errors of a batch's loss
        self._counts = np.zeros(0)  # of the targets of each class
        self._multiples: list[float] = []  # of the loss function's, the losses of the first observed steps
        self._of_one_class: list[bool] = []  # batches: whether almost all of their targets are
        self._kind = ""
        self._believes_written: bool | None = None

    def add(self, output: Output, loss: float | None = None) -> None:
        """Take in what went into the loss function of an observed step.

        Args:
            output: Of the loss function.
            loss: Of the same step; None where it is not known.
        """
        self._kind = output.kind
        if loss is not None and output.loss > 0 and len(self._multiples) < SEVERAL:
            self._multiples.append(loss / output.loss)
        if not math.isfinite(output.reference):
            return
        # The targets' mean square in one batch strays far from the true one; of classes it is the same each time.
        self._last.append(output.reference)
        constant = output.constant if math.isfinite(output.constant) else output.reference
        self._constants.append(min(constant, output.reference))
        most = abs(output.reference)  # also of one example, which has no standard error
        self._errors.append(min(output.loss_error, most) if math.isfinite(output.loss_error) else most)
        if output.kind == "cross_entropy" and sum(output.counts) >= SEVERAL_TARGETS:
            self._of_one_class.append(max(output.counts) > ONE_CLASS * sum(output.counts))
        if len(self._counts) != len(output.counts):
            self._counts = np.zeros(len(output.counts))
        self._counts += output.counts

    def is_of_the_loss(self, output: Output, loss: float | None) -> bool:
        """Return whether what went into the loss is the loss, which of one that is written out the first shows.

        Args:
            output: Of the loss function.
            loss: Of the same step; None where it is not known.
        """
        if output.scales and self._believes_written is None and loss is not None:
            multiples = (scale * output.loss for scale in output.scales)
            # A minus before it is a mistake, and the loss is this one all the same.
            self._believes_written = any(math.isclose(abs(loss), m, rel_tol=SAME_WRITTEN) for m in multiples)
        return not output.scales or bool(self._believes_written)

    @property
    def is_sorted(self) -> bool:
        """Whether almost all batches hold targets of one class, though there are several."""
        batches = len(self._of_one_class)
        several = self._counts.size > 1 and self._counts.max() < ONE_CLASS * self._counts.sum()
        return batches >= SEVERAL_BATCHES and sum(self._of_one_class) > MOST_BATCHES * batches and bool(several)

    @property
    def is_known(self) -> bool:
        """Whether it is more than the first losses."""
        return bool(self._last) and self._is_multiple

    @property
    def _is_multiple(self) -> bool:
        """Whether losses go on to be about the multiple that the first was of the loss function's."""
        weight = self.weight
        if weight == 1.0 or len(self._multiples) < FEW:
            return True
        return 2 * sum(weight / 2 < multiple < 2 * weight for multiple in self._multiples) >= len(self._multiples)

    @property
    def loss(self) -> float:
        """The loss of a network that knows nothing, or the first losses where that is not known; nan without any.

        Of a regression that starts near the mean of its targets, the loss of that mean.
        """
        if not self.is_known:
            return self.first_loss
        loss = statistics.fmean(self._last) * self.weight
        return self.of_a_constant if self.first_loss < KNOWS_THE_MEAN * loss else loss

    @property
    def of_a_constant(self) -> float:
        """The loss of the best constant output, of classes that of chance; nan where that is not known."""
        return statistics.fmean(self._constants) * self.weight if self.is_known else math.nan

    @property
    def zero_over_constant(self) -> float:
        """The loss of an output of zero over that of the best constant, of all batches together; 0 without any."""
        constants = sum(self._constants)
        return sum(self._last) / constants if constants > 0 else 0.0

    @property
    def of_frequencies(self) -> float:
        """The loss of a network that has learned how frequent each class is, and nothing else.

        nan where that is not known well, where the loss is not this alone, and of classes that are almost all of one
        kind.
        """
        if self.output is None or not self.is_known or self.has_other_terms:
            return math.nan
        loss = loss_of_frequencies(self._counts, self.output.kind == "binary_cross_entropy")
        return self.weight * loss if loss > RARE * self.output.reference else math.nan

    @property
    def batch_error(self) -> float:
        """The standard error of the loss of a batch; nan where that is not known."""
        return statistics.fmean(self._errors) * self.weight if self.is_known else math.nan

    @property
    def weight(self) -> float:
        """What one unit of the loss function counts in the loss of a step, where that is another order of magnitude.

        A loss may be a sum over the examples, or weighted; a small factor is a penalty's, or of further micro-batches.
        """
        if self.output is None or not self.first_losses or not self.output.loss > 0:
            return 1.0
        return _weight(self.first_losses[0] / self.output.loss, self.output.scales or (0.5, 2.0))

    @property
    def has_other_terms(self) -> bool:
        """Whether the first step's loss was not that of the loss function alone, times a weight."""
        if self.output is None or not self.first_losses:
            return False
        first = self.first_losses[0]
        return abs(first - self.weight * self.output.loss) > SAME_LOSS * abs(first)

    @property
    def wants_more(self) -> bool:
        """Whether a further batch tells more: of squares knowing nothing costs something else in each batch.

        And where the loss has other terms, only a batch tells how much of it is of the loss function.
        """
        return len(self._last) < WINDOW or self._kind == "regression" or self.has_other_terms

    @property
    def first_loss(self) -> float:
        """The mean of the first losses; nan without any."""
        return statistics.fmean(self.first_losses) if self.first_losses else math.nan


@lru_cache(maxsize=8)
def _weight(multiple: float, scales: tuple[float, ...]) -> float:
    """Return `multiple` if it is one of `scales`, or far from 1; else 1."""
    is_one = any(math.isclose(multiple, scale, rel_tol=SAME_MULTIPLE) for scale in scales)
    return multiple if is_one or 0 < multiple < 0.2 or 5 < multiple < math.inf else 1.0
