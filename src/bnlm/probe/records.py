"""What one observed optimizer step leaves behind: sums on the device, nothing larger than a histogram or a map."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bnlm.probe.loss_record import LossRecord
from bnlm.probe.moment_table import Sums


@dataclass
class ActivationRecord:
    """One activation in one step; moment sums `(3,)` pooled over the step's micro-batches (see `stats.moments`).

    Attributes:
        kind: torch's function name: tanh, relu, ...
        output: Moment sums of the outputs.
        input: Moment sums of the pre-activations; None of torch's fused recurrences.
        gradient: Moment sums of the loss gradient at the outputs; None until a backward pass came by.
        flat: Moment sums of booleans, whether an output is on the flat part; None for unbounded activations.
        responded: `(units,)` booleans, see `stats.responding_units`; None without units that can die.
        histogram: Of the first micro-batch's outputs, see `stats.histogram`; likewise `gradient_histogram`.
        flat_map: `(examples, units)` booleans of the first micro-batch.
    """

    kind: str
    output: Tensor
    input: Tensor | None = None
    gradient: Tensor | None = None
    flat: Tensor | None = None
    responded: Tensor | None = None
    histogram: Tensor | None = None
    gradient_histogram: Tensor | None = None
    flat_map: Tensor | None = None


@dataclass
class ParameterRecord:
    """One parameter in one step: moment sums `(3,)` of its gradient (before clipping), its data and its change."""

    shape: torch.Size
    data: Tensor | None = None
    gradient: Tensor | None = None
    update: Tensor | None = None
    gradient_histogram: Tensor | None = None


@dataclass
class Heard:
    """What calls of functions in a forward pass tell of a network, beside what they return.

    Attributes:
        values_per_channel: By module path of a BatchNorm, how many values its last batch had per channel.
        aside: Which of the activations are no layers: calls of a rectifier in a loss, as a hinge is, and those of a
            parameter; not told where modules alone are heard.
        outputs: Which of the sigmoids are the last before the loss; likewise.
        blank: Module path of the first layer of a forward, if nothing but zeros came to it; else nothing.
        dropouts: By module path, the p of its last dropout.
        input_std: Of the numbers that come to the first layer of a forward; nan where these are indices.
        normalized: By module path of a linear layer or a convolution, torch's name of the normalization that takes its
            output as it is.
    """

    values_per_channel: dict[str, int] = field(default_factory=dict)
    aside: set[str] = field(default_factory=set)
    outputs: set[str] = field(default_factory=set)
    blank: str = ""
    dropouts: dict[str, float] = field(default_factory=dict)
    input_std: float = math.nan
    normalized: dict[str, str] = field(default_factory=dict)


@dataclass
class StepRecord:
    """All that was seen of one optimizer step.

    Attributes:
        sums: Moment sums by group: `output`, `input`, `output gradient` and `flat` (whether outputs are on the flat
            part, as 0 and 1) of layers, `data`, `gradient` and `update` of parameters.
        kinds: By layer, torch's name of the function.
        responded: By layer, see `ActivationRecord`.
        histograms: By group (`activations`, `activation_gradients`, `gradients`) and name.
        maps: By layer, see `ActivationRecord.flat_map`.
        shapes: By parameter.
        losses: The calls of loss functions in one forward, in their order.
        heard: Of the calls in the forward pass.
        called: Whether there was any call of a layer: a batch may be skipped.
    """

    sums: dict[str, Sums] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    responded: dict[str, Tensor] = field(default_factory=dict)
    histograms: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    maps: dict[str, Tensor] = field(default_factory=dict)
    shapes: dict[str, torch.Size] = field(default_factory=dict)
    losses: list[LossRecord] = field(default_factory=list)
    heard: Heard = field(default_factory=Heard)
    called: bool = False

    @property
    def activations(self) -> dict[str, ActivationRecord]:
        """Each layer by itself."""
        output, before, gradient, flat = (self._rows(group) for group in ("output", "input", "output gradient", "flat"))
        of_outputs, of_gradients = (self.histograms.get(g, {}) for g in ("activations", "activation_gradients"))
        return {
            name: ActivationRecord(
                kind, output[name], before.get(name), gradient.get(name), flat.get(name), self.responded.get(name),
                of_outputs.get(name), of_gradients.get(name), self.maps.get(name),
            )
            for name, kind in self.kinds.items()
        }  # fmt: skip

    @property
    def parameters(self) -> dict[str, ParameterRecord]:
        """Each parameter by itself."""
        data, gradient, update = (self._rows(group) for group in ("data", "gradient", "update"))
        histograms = self.histograms.get("gradients", {})
        return {
            name: ParameterRecord(shape, data.get(name), gradient.get(name), update.get(name), histograms.get(name))
            for name, shape in self.shapes.items()
        }

    def _rows(self, group: str) -> Mapping[str, Tensor]:
        of_group = self.sums.get(group)
        return {} if of_group is None else dict(zip(of_group.names, of_group.sums.unbind(), strict=True))
