"""What the doctor is told: of an observed step, of what fed its loss, of running statistics at a validation."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from bnlm.probe import Heard, LossRecord, family_of


@dataclass
class Output:
    """What went into the loss function of an observed step.

    Attributes:
        kind: cross_entropy, binary_cross_entropy, or regression: a squared or absolute error or one between these.
        reference: Loss of a network that knows nothing: ln of the number of classes, ln 2, loss of an
            output of zero.
        loss: Mean over the examples looked at, and `loss_error`, the standard error of that mean.
        logit_std: Of an example's logits over the classes, averaged; nan where there are no classes, or their logits
            are cosines, times a scale that is chosen; of binary logits that over all of them.
        constant: Loss of the best constant output on the same examples, of a squared error the variance of the targets;
            nan of other kinds.
        broadcast: See `LossRecord`.
        floor: What the loss cannot fall below, where what is given for logits may be probabilities, or comes out of an
            activation; -inf where what is given for log-probabilities is none, inf where each probability is 1; else
            nan.
        counts: Targets of each class, where they were counted.
        scales: See `LossRecord`: whether it is a loss at all is to be seen.
        activation: See `LossRecord`.
        spread: How far an output differs between examples, as a share of the largest output; nan of a single example.
        squared: Whether a regression's loss grows with the square of an error, rather than with the error.
    """

    kind: str
    reference: float
    loss: float
    loss_error: float
    logit_std: float
    constant: float = math.nan
    broadcast: bool = False
    floor: float = math.nan
    counts: list[float] = field(default_factory=list)
    scales: tuple[float, ...] = ()
    activation: str = ""
    spread: float = math.nan
    squared: bool = True

    @property
    def out_of_reach(self) -> float:
        """Share of the loss of one that knows nothing, or of the best constant, that this activation cannot go below.

        0 of outputs that come out of none.
        """
        known = self.constant if self.kind == "regression" else self.reference
        return self.floor / known if self.activation and known > 0 else 0.0

    @classmethod
    def of(cls, record: LossRecord) -> Output:
        """Return what a call of a loss function tells."""
        loss, error, reference, logit_std, constant, floor, differ, *counts = record.values.tolist()
        return cls(
            family_of(record.kind), reference, loss, error, logit_std, constant, record.broadcast, floor, counts,
            record.scales, record.activation, spread=differ, squared=record.kind == "mse_loss",
        )  # fmt: skip


@dataclass
class Observation:
    """One observed step: statistics by name and layer or parameter, and what fed the loss.

    `lr_share` is the learning rate over its highest so far, `lr_rise` over that of the last observed step, `decays`
    what `weight_decay.decays_of` returns, `others` what went into further loss functions than the first, `heard` what
    the calls of the forward pass tell.
    """

    step: int
    statistics: dict[str, dict[str, float]]
    kinds: dict[str, str]
    output: Output | None = None
    lr_share: float = 1.0
    decays: list[float] = field(default_factory=list)
    others: list[Output] = field(default_factory=list)
    heard: Heard = field(default_factory=Heard)
    lr_rise: float = 1.0

    def of(self, statistic: str) -> dict[str, float]:
        """Return one statistic by layer or parameter."""
        return self.statistics.get(statistic, {})

    @property
    def gradient_norm(self) -> float | None:
        """L2 norm over all gradients, before clipping."""
        return self.of("gradient_norm").get("total")


@dataclass
class StatisticsGap:
    """How far the running statistics of the BatchNorm that strays most are from those of a validation batch.

    Attributes:
        layer: Its module path.
        log_variance: Median over the channels of |log(running variance / variance)|.
        mean: Mean over the channels of |running mean - mean|, in standard deviations.
        momentum: None for a cumulative average.
        step: Optimizer steps taken.
        updates: Batches that the running statistics have taken in, None where nobody counts them.
        by_hand: Whether it is no BatchNorm of torch's, whose momentum may mean anything.
    """

    layer: str
    log_variance: float
    mean: float
    momentum: float | None
    step: int
    updates: int | None = None
    by_hand: bool = False

    @property
    def left(self) -> float:
        """The share of the statistics' start that is left in them."""
        return 1.0 if self.updates == 0 else self.residue(self.step if self.updates is None else self.updates)

    def residue(self, steps: float) -> float:
        """Return the share of the statistics' start that is left after so many steps."""
        return 0.0 if self.momentum is None else float((1 - self.momentum) ** steps)
