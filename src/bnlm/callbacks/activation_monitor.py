"""Activations over depth: how large they are, how many are on their flat part, which units never respond."""

from typing import Any, ClassVar

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from bnlm.callbacks import figures
from bnlm.callbacks.monitor import Monitor
from bnlm.callbacks.shared_observation import Measured, OnHost
from bnlm.callbacks.tensorboard import write_image
from bnlm.probe import ActivationRecord, StepRecord, Wanted
from bnlm.stats import mean_of, std_of

#: Observed steps over which a unit has to stay silent to count as dead.
DEAD_WINDOW = 20


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
    """

    charts: ClassVar[dict[str, list[str]]] = {
        "saturation": ["saturation/.*"],
        "dead units": ["dead_units/.*"],
        "activation std": ["activation_std/.*"],
        "activation mean": ["activation_mean/.*"],
        "pre-activation std": ["preactivation_std/.*"],
        "activation gradient std": ["activation_gradient_std/.*"],
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # By layer: for how many observed steps each unit has been silent `(units,)`, and over how many it was watched.
        self._silent: dict[str, tuple[Tensor, int]] = {}
        self._kinds: dict[str, str] = {}

    def wanted(self, histograms: bool, figures: bool) -> Wanted:
        return Wanted(activations=True, histograms=histograms or figures, maps=figures)

    def measure(self, record: StepRecord) -> Measured:
        measured = Measured()
        seen = self.selected(record.activations)
        if not seen:
            return measured
        outputs = torch.stack([a.output for a in seen.values()])
        measured.add("activation_mean", seen, mean_of(outputs))
        measured.add("activation_std", seen, std_of(outputs))
        measured.add("preactivation_std", seen, std_of(torch.stack([a.input for a in seen.values()])))
        gradients = {layer: a.gradient for layer, a in seen.items() if a.gradient is not None}
        if gradients:
            measured.add("activation_gradient_std", gradients, std_of(torch.stack(list(gradients.values()))))
        flat = {layer: a.flat for layer, a in seen.items() if a.flat is not None}
        if flat:
            on_flat, looked_at = torch.stack(list(flat.values())).unbind(1)
            measured.add("saturation", flat, on_flat / looked_at)
        self.add_dead_units(measured, seen)
        for layer, activation in seen.items():
            self._kinds[layer] = activation.kind
            if activation.histogram is not None:
                measured.histograms[f"activations/{layer}"] = activation.histogram
            if activation.gradient_histogram is not None:
                measured.histograms[f"activation_gradients/{layer}"] = activation.gradient_histogram
            if activation.flat_map is not None:
                measured.maps[layer] = activation.flat_map
        return measured

    def add_dead_units(self, measured: Measured, seen: dict[str, ActivationRecord]) -> None:
        """Take in which units responded, and add what fraction of each layer has not done so over the window."""
        units = {layer: a.responded for layer, a in seen.items() if a.responded is not None}
        if units:
            first = next(iter(seen.values())).output
            device, dtype = first.device, first.dtype
            dead = torch.stack([self._dead_units(layer, responded).to(device) for layer, responded in units.items()])
            counts = torch.tensor([len(responded) for responded in units.values()], device=device)
            measured.add("dead_units", units, dead.to(dtype) / counts)

    def _dead_units(self, layer: str, responded: Tensor) -> Tensor:
        """Return how many units have been silent over the window."""
        silent, watched = self._silent.get(layer, (responded, 0))
        if not watched or silent.shape != responded.shape:
            silent, watched = torch.zeros_like(responded, dtype=torch.int32), 0
        silent, watched = torch.where(responded, 0, silent.to(responded.device) + 1), min(watched + 1, DEAD_WINDOW)
        self._silent[layer] = silent, watched
        return (silent >= watched).sum()

    def forget(self) -> None:
        self._silent.clear()
        self._kinds.clear()

    def draw(self, trainer: Trainer, values: OnHost) -> None:
        for statistic, title in (("activations", "outputs"), ("activation_gradients", "loss gradient at the outputs")):
            curves = {
                f"{layer} ({kind})": values.histograms[f"{statistic}/{layer}"]
                for layer, kind in self._kinds.items()
                if f"{statistic}/{layer}" in values.histograms
            }
            if curves:
                image = figures.distributions(curves, f"Activations: {title}, step {values.step}")
                write_image(trainer.loggers, f"figures/{statistic}", image, values.step)
        for layer, flat_map in values.maps.items():
            title = f"{layer} ({self._kinds[layer]}): flat outputs in white, step {values.step}"
            write_image(
                trainer.loggers, f"figures/saturation_map/{layer}", figures.saturation_map(flat_map, title), values.step
            )

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "silent": dict(self._silent)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._silent = dict(state_dict["silent"])
