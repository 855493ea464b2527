"""The size of the optimizer's real steps beside the parameters they change."""

from collections.abc import Mapping
from typing import Any, ClassVar

from lightning.pytorch import Trainer

from bnlm.callbacks import figures
from bnlm.callbacks.monitor import Monitor, finite_or_left_out
from bnlm.callbacks.observed_step import ObservedStep, Statistics
from bnlm.callbacks.options import at_least_one
from bnlm.callbacks.tensorboard import WEIGHTS, write_image
from bnlm.probe import Wanted

#: Points a curve of the figure keeps; of more, only every second, fourth, ... observed step stays, and the newest.
MAX_POINTS = 512


class UpdateMonitor(Monitor):
    """Logs how far a step moved every parameter (see `Monitor` for when).

    | tag | meaning |
    |---|---|
    | `update_to_data/{param}` | log10( std(after - before) / std(before) ) of the measured change |
    | figure `update_to_data` | the same over time for the weight matrices, with the rule of thumb's line at -3 |

    The change is measured on the parameter, so momentum, weight decay, an optimizer's scaling and clipping are in it.
    Left out where it does not exist: a parameter without spread, or one that did not move.
    Source: Karpathy, makemore part 3 (2022), who plots lr * gradient instead.

    Args:
        min_elements: Parameters with fewer elements are left out.
    """

    charts: ClassVar[dict[str, list[str]]] = {
        "update:data of weights (log10)": [f"update_to_data/{WEIGHTS}"],
        "update:data (log10)": ["update_to_data/.*"],
    }

    def __init__(self, *args: Any, min_elements: int = 2, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.min_elements = max(at_least_one("min_elements", min_elements), 2)
        self._history: dict[str, list[tuple[int, float]]] = {}
        self._stride = 1

    def wanted(self, histograms: bool, figures: bool) -> Wanted:
        return Wanted(updates=True)

    def measure(self, seen: ObservedStep) -> Statistics:
        ratios = finite_or_left_out(self.selected(seen.statistics.get("update_to_data", {})))
        if self.min_elements > 2:
            ratios = {name: value for name, value in ratios.items() if seen.shapes[name].numel() >= self.min_elements}
        self.remember(seen.step, {name: value for name, value in ratios.items() if len(seen.shapes[name]) >= 2})
        return {"update_to_data": ratios}

    def remember(self, step: int, ratios: Mapping[str, float]) -> None:
        """Keep the weights' ratios for the figure."""
        for name, value in ratios.items():
            points = self._history.setdefault(name, [])
            if points and not self._kept(points[-1][0]):
                points.pop()  # was there as the newest
            points.append((step, value))
        while max(map(len, self._history.values()), default=0) > MAX_POINTS:
            self._stride *= 2
            for points in self._history.values():
                points[:] = [point for point in points[:-1] if self._kept(point[0])] + points[-1:]

    def _kept(self, step: int) -> bool:
        """Whether the history keeps this step: all have the same distance, which doubles when there are too many."""
        return (step // self.every_n_steps) % self._stride == 0

    def forget(self) -> None:
        self._history.clear()
        self._stride = 1

    def draw(self, trainer: Trainer, seen: ObservedStep, statistics: Statistics) -> None:
        if self._history:
            write_image(trainer.loggers, "figures/update_to_data", figures.updates(self._history), seen.step)

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()  # reads what waits
        history = {name: [list(point) for point in points] for name, points in self._history.items()}
        return {**state, "history": history, "stride": self._stride}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._stride = state_dict["stride"]
        self._history = {
            name: [(int(step), float(value)) for step, value in points]
            for name, points in state_dict["history"].items()
        }
