"""Gradients of the parameters, and how large they are beside the parameters themselves."""

from typing import Any, ClassVar

import torch
from lightning.pytorch import Trainer

from bnlm.callbacks import figures
from bnlm.callbacks.monitor import Monitor, at_least_one, finite_or_left_out
from bnlm.callbacks.shared_observation import Measured, OnHost
from bnlm.callbacks.tensorboard import WEIGHTS, write_image
from bnlm.probe import StepRecord, Wanted
from bnlm.stats import std_of


class GradientMonitor(Monitor):
    """Logs every parameter's gradient as the optimizer will use it, before clipping (see `Monitor` for when).

    | tag | meaning |
    |---|---|
    | `gradient_std/{param}` | standard deviation of the gradient |
    | `grad_to_data/{param}` | std(gradient) / std(parameter); left out where the parameter does not vary |
    | `gradient_norm/total` | L2 norm over all parameters |
    | histograms `gradients/{param}` | |
    | figure `weight_gradients` | the distributions of the weight matrices' gradients |

    Unscaled under fp16 mixed precision, after reduction under DDP. A parameter with a single element has no standard
    deviation and is left out. Source: Karpathy, makemore part 3 (2022).

    Args:
        min_elements: Parameters with fewer elements are left out, but for the norm.
    """

    charts: ClassVar[dict[str, list[str]]] = {
        "gradient:data of weights": [f"grad_to_data/{WEIGHTS}"],
        "gradient:data": ["grad_to_data/.*"],
        "gradient std": ["gradient_std/.*"],
        "gradient norm": ["gradient_norm/total"],
    }

    def __init__(self, *args: Any, min_elements: int = 2, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.min_elements = max(at_least_one("min_elements", min_elements), 2)
        self._weights: dict[str, torch.Size] = {}

    def wanted(self, histograms: bool, figures: bool) -> Wanted:
        return Wanted(gradients=True, histograms=histograms or figures)

    def measure(self, record: StepRecord) -> Measured:
        measured = Measured()
        seen = self.selected(record.parameters)
        self._weights = {name: p.shape for name, p in seen.items() if len(p.shape) >= 2}
        for name, parameter in seen.items():
            if parameter.gradient is not None and parameter.gradient_histogram is not None:
                measured.histograms[f"gradients/{name}"] = parameter.gradient_histogram
        several = {n: p for n, p in seen.items() if p.gradient is not None and p.shape.numel() >= self.min_elements}
        if several:
            gradient = std_of(torch.stack([p.gradient for p in several.values() if p.gradient is not None]))
            data = std_of(torch.stack([p.data for p in several.values()]))
            measured.add("gradient_std", several, gradient)
            measured.add("grad_to_data", several, gradient / data)
        norm = record.gradient_norm()
        if norm is not None:
            measured.add("gradient_norm", ["total"], norm.reshape(1))
        return measured

    def publish(self, trainer: Trainer, values: OnHost) -> None:
        ratios = {tag: value for tag, value in values.scalars.items() if tag.startswith("grad_to_data/")}
        rest = {tag: value for tag, value in values.scalars.items() if tag not in ratios}
        values.scalars = rest | finite_or_left_out(ratios)
        super().publish(trainer, values)

    def draw(self, trainer: Trainer, values: OnHost) -> None:
        curves = {}
        for name, shape in self._weights.items():
            counted = values.histograms.get(f"gradients/{name}")
            if counted is not None:
                ratio = values.scalars.get(f"grad_to_data/{name}", float("nan"))
                curves[f"{name} {'x'.join(map(str, shape))}, grad:data {ratio:.1e}"] = counted
        if curves:
            image = figures.distributions(curves, f"Gradients of the weights, step {values.step}")
            write_image(trainer.loggers, "figures/weight_gradients", image, values.step)
