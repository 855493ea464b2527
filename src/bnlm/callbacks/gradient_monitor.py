"""Gradients of the parameters, and how large they are beside the parameters themselves."""

from typing import Any, ClassVar

import numpy as np
from lightning.pytorch import Trainer

from bnlm.callbacks import figures
from bnlm.callbacks.monitor import Monitor, finite_or_left_out
from bnlm.callbacks.observed_step import ObservedStep, Statistics
from bnlm.callbacks.options import at_least_one
from bnlm.callbacks.tensorboard import WEIGHTS, write_image
from bnlm.probe import Wanted


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

    def wanted(self, histograms: bool, figures: bool) -> Wanted:
        return Wanted(gradients=True, histograms=histograms or figures)

    def measure(self, seen: ObservedStep) -> Statistics:
        written: Statistics = {}
        for statistic in ("gradient_std", "grad_to_data"):
            of = self.selected(seen.statistics.get(statistic, {}))
            if self.min_elements > 2:
                of = {name: value for name, value in of.items() if seen.shapes[name].numel() >= self.min_elements}
            written[statistic] = of
        written["grad_to_data"] = finite_or_left_out(written["grad_to_data"])
        written["gradient_norm"] = seen.statistics.get("gradient_norm", {})
        return written

    def histograms(self, seen: ObservedStep) -> dict[str, dict[str, np.ndarray]]:
        return {"gradients": self.selected(seen.histograms["gradients"])}

    def draw(self, trainer: Trainer, seen: ObservedStep, statistics: Statistics) -> None:
        curves = {}
        for name, counted in self.selected(seen.histograms["gradients"]).items():
            if len(shape := seen.shapes[name]) >= 2:
                ratio = statistics["grad_to_data"].get(name, float("nan"))
                curves[f"{name} {'x'.join(map(str, shape))}, grad:data {ratio:.1e}"] = counted
        if curves:
            image = figures.distributions(curves, f"Gradients of the weights, step {seen.step}")
            write_image(trainer.loggers, "figures/weight_gradients", image, seen.step)
