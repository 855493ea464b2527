"""One batch through a model before any training: does the signal reach the end, and the gradient the beginning?"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bnlm.init.layers import FoundLayer, find_layers
from bnlm.init.untouched import call, first_tensor
from bnlm.init.watch import Watch, watching

if TYPE_CHECKING:
    from rich.table import Table

#: Where a network is alive: limits of every activation's std over the first's.
ALIVE = (0.5, 2.0)
#: Of the first gradient's std over the last's: where it is even, and where the network is alive at all.
EVEN, ALIVE_GRADIENT = (0.1, 10.0), (1e-3, 1e3)

#: The picture's largest range; what leaves it is lost, however far it goes.
PICTURED = (1e-4, 1e4)


@dataclass(frozen=True)
class PreviewRow:
    """Scales of one layer: what it gave, and what the activation after it made of that (the same where there is none).

    ``over_batch`` is the part of ``activation_std`` that differs between examples: the root of the variance over the
    batch, averaged over units. Where it is small the network answers the same to every input. ``gradient_std`` is that
    of the gradient at the activation; None where no gradient arrives.
    """

    layer: str
    activation: str | None
    preactivation_std: float
    activation_std: float
    over_batch: float
    gradient_std: float | None


@dataclass(frozen=True)
class Preview:
    """The scales of a model's layers, in the order in which these worked."""

    rows: Sequence[PreviewRow]

    @property
    def compared(self) -> Sequence[PreviewRow]:
        """The rows of layers with an activation, as the scale of logits is another matter; all if under two have."""
        hidden = [row for row in self.rows if row.activation is not None]
        return hidden if len(hidden) > 1 else self.rows

    @property
    def activation_ratio(self) -> float:
        """The last activation's standard deviation over the first's."""
        return _ratio(self.compared[-1].activation_std, self.compared[0].activation_std) if self.rows else math.nan

    @property
    def gradient_ratio(self) -> float:
        """The gradient's standard deviation at the first activation over that at the last; nan without gradients."""
        return _ratio(self.compared[0].gradient_std, self.compared[-1].gradient_std) if self.rows else math.nan

    @property
    def verdict(self) -> str:
        """Alive, faded or blown up: the activations of all layers, then the gradients where there are any."""
        if not self.rows:
            return "empty"
        first = self.compared[0].activation_std
        ratios = [_ratio(row.activation_std, first) for row in self.compared]
        verdict = next((word for ratio in reversed(ratios) if (word := _judged(ratio, ALIVE)) != "alive"), "alive")
        if verdict != "alive" or any(row.gradient_std is None for row in self.compared):
            return verdict
        verdict = _judged(self.gradient_ratio, ALIVE_GRADIENT)
        if verdict != "alive":
            return f"gradient {verdict}"
        return verdict if _judged(self.gradient_ratio, EVEN) == "alive" else "alive, gradient uneven"

    def table(self) -> Table:
        """Return a rich table with one row a layer."""
        from rich.table import Table  # here, so that the schemes need torch only

        table = Table(title=f"Before training: {self.verdict}")
        table.add_column("layer")
        table.add_column("activation")
        for heading in ("preactivation std", "activation std", "over the batch", "gradient std"):
            table.add_column(heading, justify="right")
        for row in self.rows:
            numbers = (row.preactivation_std, row.activation_std, row.over_batch, row.gradient_std)
            table.add_row(row.layer, row.activation or "-", *("-" if n is None else f"{n:.3g}" for n in numbers))
        return table

    def save(self, path: str | Path) -> None:
        """Draw both scales over depth as a picture; the suffix of ``path`` names the format."""
        save_previews({"": {"": self}}, path)


def preview(model: nn.Module, example: Any, loss: Callable[[Any], Tensor] | None = None) -> Preview:
    """Push one batch through ``model`` and back, and return the scales of activations and gradients per layer.

    The model is as before afterwards: its gradients, modes, buffers and torch's random state. It runs in training mode.

    Args:
        example: A batch of inputs: the model's argument, a tuple of its arguments, or a mapping of its keywords.
        loss: Makes a scalar of the model's output. None sends a gradient drawn from N(0, 1) into the output, which is
            enough to compare layers.
    """
    layers = find_layers(model)
    with torch.enable_grad(), watching(model, layers, keep=True) as watch:
        output = call(model, example)
        # Backward before the buffers are put back: BatchNorm's needs them unchanged.
        gradients = _gradients(watch, output if loss is None else loss(output), drawn=loss is None)
    # What MultiheadAttention gives is given by its out_proj, which has its own row.
    worked = [layer for layer in watch.outputs if not isinstance(layer.module, nn.MultiheadAttention)]
    return Preview([_row(watch, layer, gradients.get(layer)) for layer in worked])


def save_previews(previews: Mapping[str, Mapping[str, Preview]], path: str | Path) -> None:
    """Draw previews into one picture: a row of panels for each title, in it a curve for each label."""
    from matplotlib.figure import Figure  # without pyplot: no window, no global state

    figure = Figure(figsize=(10, 0.6 + 2.6 * len(previews)), dpi=80, layout="constrained")
    for panels, (title, curves) in zip(figure.subplots(len(previews), 2, squeeze=False), previews.items(), strict=True):
        for axes, field in zip(panels, ("activation_std", "gradient_std"), strict=True):
            for label, found in curves.items():
                values = [getattr(row, field) for row in found.compared]
                kept = [(i, v) for i, v in enumerate(values, 1) if v is not None and math.isfinite(v) and v > 0]
                axes.plot([i for i, _ in kept], [v for _, v in kept], marker=".", label=label)
            axes.set_yscale("log")
            low, high = axes.get_ylim()
            axes.set_ylim(max(low, PICTURED[0]), min(high, PICTURED[1]))
            axes.set_xlabel("layer")
            axes.set_title(f"{title}: {field.replace('_', ' ')}".removeprefix(": "))
        if len(curves) > 1:
            panels[1].legend(fontsize="small")
    figure.savefig(path)


def _gradients(watch: Watch, output: Any, drawn: bool) -> dict[FoundLayer, Tensor | None]:
    tensor = first_tensor(output)
    inputs = {layer: x for layer in watch.outputs if (x := _end_of(watch, layer)).requires_grad}
    if tensor is None or not tensor.requires_grad or not inputs:
        return {}
    direction = None
    if drawn:
        noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(0))
        direction = noise.to(tensor)
    found = torch.autograd.grad(tensor, list(inputs.values()), direction, allow_unused=True)
    return dict(zip(inputs, found, strict=True))


def _end_of(watch: Watch, layer: FoundLayer) -> Tensor:
    return watch.activations.get(layer, watch.outputs[layer])


@torch.no_grad()
def _row(watch: Watch, layer: FoundLayer, gradient: Tensor | None) -> PreviewRow:
    end = _end_of(watch, layer)
    return PreviewRow(
        layer=layer.name,
        activation=watch.kinds.get(layer),
        preactivation_std=_std(watch.outputs[layer]),
        activation_std=_std(end),
        over_batch=_wide(end).var(0, correction=0).mean().sqrt().item(),
        gradient_std=None if gradient is None else _std(gradient),
    )


def _std(x: Tensor) -> float:
    return _wide(x).std(correction=0).item()


def _wide(x: Tensor) -> Tensor:
    return x.detach().to("cpu", torch.float64)  # not every device has float64


def _judged(ratio: float, limits: tuple[float, float]) -> str:
    if not math.isfinite(ratio) or ratio > limits[1]:
        return "blown up"
    return "faded" if ratio < limits[0] else "alive"


def _ratio(a: float | None, b: float | None) -> float:
    if a is None or b is None:
        return math.nan
    return a / b if b else math.inf
