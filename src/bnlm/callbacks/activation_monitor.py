"""Activations over depth: how large they are, how many are on their flat part, which units never respond."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from lightning.pytorch import Trainer

from bnlm.callbacks import figures
from bnlm.callbacks.dead_units import DeadUnits
from bnlm.callbacks.monitor import Monitor
from bnlm.callbacks.observed_step import ObservedStep, Statistics
from bnlm.callbacks.options import dims_by_pattern
from bnlm.callbacks.tensorboard import write_image
from bnlm.probe import Wanted

_STATISTICS = ("activation_mean", "activation_std", "preactivation_std", "activation_gradient_std", "saturation")


class ActivationMonitor(Monitor):
    """Logs the statistics of every activation, whether a module or a call (see `Monitor` for when).

    | tag | meaning |
    |---|---|
    | `activation_mean/{layer}`, `activation_std/{layer}` | of the output |
    | `preactivation_std/{layer}` | of the input |
    | `saturation/{layer}` | fraction of outputs on the flat part (tanh beyond 0.97, ...); bounded activations |
    | `dead_units/{layer}` | fraction of units silent in all of the last 20 observed steps |
    | `activation_gradient_std/{layer}` | of the loss gradient at the output |
    | histograms `activations/{layer}`, `activation_gradients/{layer}` | |
    | figures `activations`, `activation_gradients`, `saturation_map/{layer}` | |

    Of an activation with more than 262,144 elements, evenly spaced slices of about that many are looked at.
    Source of the statistics: Karpathy, makemore part 3 (2022).

    Args:
        *args: See `Monitor`.
        channel_dims: The dimension of the units by shell patterns of layers (`{"encoder.*": 1}`), where it is another
            than is found from the layer before: 1 after convolutions and BatchNorm, the last one after linear layers.
        **kwargs: See `Monitor`.
    Raises:
        ValueError: As `Monitor` does; if a dimension is no whole number, or one that the activation does not have.
    """

    charts: ClassVar[dict[str, list[str]]] = {
        "saturation": ["saturation/.*"],
        "dead units": ["dead_units/.*"],
        "activation std": ["activation_std/.*"],
        "activation mean": ["activation_mean/.*"],
        "pre-activation std": ["preactivation_std/.*"],
        "activation gradient std": ["activation_gradient_std/.*"],
    }

    def __init__(self, *args: Any, channel_dims: Mapping[str, int] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.channel_dims = dims_by_pattern(channel_dims)
        self.dead_units = DeadUnits()

    def wanted(self, histograms: bool, figures: bool) -> Wanted:
        return Wanted(activations=True, histograms=histograms or figures, maps=figures)

    def measure(self, seen: ObservedStep) -> Statistics:
        written = {statistic: self.selected(seen.statistics.get(statistic, {})) for statistic in _STATISTICS}
        written["dead_units"] = self.dead_units.shares(self.selected(seen.responded))
        return written

    def histograms(self, seen: ObservedStep) -> dict[str, dict[str, np.ndarray]]:
        return {which: self.selected(seen.histograms[which]) for which in ("activations", "activation_gradients")}

    def forget(self) -> None:
        self.dead_units = DeadUnits()

    def draw(self, trainer: Trainer, seen: ObservedStep, statistics: Statistics) -> None:
        for which, title in (("activations", "outputs"), ("activation_gradients", "loss gradient at the outputs")):
            counted = self.selected(seen.histograms[which])
            curves = {f"{layer} ({seen.kinds[layer]})": counts for layer, counts in counted.items()}
            if curves:
                image = figures.distributions(curves, f"Activations: {title}, step {seen.step}")
                write_image(trainer.loggers, f"figures/{which}", image, seen.step)
        for layer, flat_map in self.selected(seen.maps).items():
            title = f"{layer} ({seen.kinds[layer]}): flat outputs in white, step {seen.step}"
            image = figures.saturation_map(flat_map, title)
            write_image(trainer.loggers, f"figures/saturation_map/{layer}", image, seen.step)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "silent": self.dead_units.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.dead_units.load_state_dict(state_dict["silent"])
