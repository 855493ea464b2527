"""Gradients of the parameters, and how large they are beside the parameters themselves."""

from typing import ClassVar

import torch
from lightning.pytorch import Trainer

from bnlm.callbacks import figures
from bnlm.callbacks.monitor import Monitor, finite_or_left_out
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
    """

    charts: ClassVar[dict[str, list[str]]] = {
        "gradient:data of weights": [f"grad_to_data/{WEIGHTS}"],
        "gradient:data": ["grad_to_data/.*"],
        "gradient std": ["gradient_std/.*"],
        "gradient norm": ["gradient_norm/total"],
    }

    def wanted(self, histograms: bool, figures: bool) -> Wanted:
        return Wanted(gradients=True, histograms=histograms or figures)

    def measure(self, record: StepRecord) -> Measured:
        measured = Measured()
        self._weights = {name: p.shape for name, p in record.parameters.items() if len(p.shape) >= 2}
        for name, parameter in record.parameters.items():
            if parameter.gradient is None:
                continue
            if parameter.gradient_histogram is not None:
                measured.histograms[f"gradients/{name}"] = parameter.gradient_histogram
        several = {n: p for n, p in record.parameters.items() if p.gradient is not None and p.shape.numel() > 1}
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
