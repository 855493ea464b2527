"""What one observed optimizer step leaves behind: sums on the device, nothing larger than a histogram or a map."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from bnlm.probe.loss_record import LossRecord
from bnlm.stats import pooled


@dataclass
class ActivationRecord:
    """One activation in one step; moment sums `(3,)` pooled over the step's micro-batches (see `stats.moments`).

    Attributes:
        kind: torch's function name: tanh, relu, ...
        output: Moment sums of the outputs.
        input: Moment sums of the pre-activations.
        gradient: Moment sums of the loss gradient at the outputs; None until a backward pass came by.
        flat: `(2,)`: outputs on the flat part, outputs looked at; None for unbounded activations.
        responded: `(units,)` booleans, see `stats.responding_units`; None without units that can die.
        histogram: Of the first micro-batch's outputs, see `stats.histogram`; likewise `gradient_histogram`.
        flat_map: `(examples, units)` booleans of the first micro-batch.
    """

    kind: str
    output: Tensor
    input: Tensor
    gradient: Tensor | None = None
    flat: Tensor | None = None
    responded: Tensor | None = None
    histogram: Tensor | None = None
    gradient_histogram: Tensor | None = None
    flat_map: Tensor | None = None

    def add(self, other: "ActivationRecord") -> None:
        """Pool the same activation of a further micro-batch, or of another process, into this record."""
        self.output = pooled(self.output, other.output)
        self.input = pooled(self.input, other.input)
        if self.gradient is not None and other.gradient is not None:
            self.gradient = pooled(self.gradient, other.gradient)
        if self.flat is not None and other.flat is not None:
            self.flat = self.flat + other.flat
        if self.responded is not None and other.responded is not None:
            # Of another number (of positions in sequences of another length) they are not the same units.
            same = self.responded.shape == other.responded.shape
            self.responded = self.responded | other.responded if same else None


@dataclass
class ParameterRecord:
    """One parameter in one step: moment sums `(3,)` of its gradient (before clipping), its data and its change."""

    shape: torch.Size
    data: Tensor
    gradient: Tensor | None = None
    update: Tensor | None = None
    gradient_histogram: Tensor | None = None


@dataclass
class StepRecord:
    """All that was seen of one optimizer step.

    Attributes:
        activations, parameters: By layer and by parameter.
        losses: The calls of loss functions, in their order.
        values_per_channel: By module path of a BatchNorm, how many values its last batch had per channel.
    """

    activations: dict[str, ActivationRecord] = field(default_factory=dict)
    parameters: dict[str, ParameterRecord] = field(default_factory=dict)
    losses: list[LossRecord] = field(default_factory=list)
    values_per_channel: dict[str, int] = field(default_factory=dict)
