"""Arguments of the monitors, what they refuse, and that what they keep is bounded."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import FSDPStrategy
from torch import Tensor, nn
from torch.utils.data import DataLoader

from bnlm.callbacks import ActivationMonitor, GradientMonitor, UpdateMonitor
from bnlm.callbacks.monitor import Monitor
from bnlm.callbacks.observed_step import ObservedStep
from bnlm.callbacks.shared_observation import SharedObservation
from bnlm.callbacks.update_monitor import MAX_POINTS

MONITORS = [ActivationMonitor, GradientMonitor, UpdateMonitor]

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")


@pytest.mark.parametrize("monitor", MONITORS)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"every_n_steps": 0}, r"diagnostics\.every_n_steps=0: expected a whole number of at least 1\.$"),
        ({"every_n_steps": None}, r"diagnostics\.every_n_steps=None: expected a whole number of at least 1\.$"),
        ({"every_n_steps": 2.5}, r"diagnostics\.every_n_steps=2\.5: expected a whole number"),
        ({"every_n_steps": True}, r"diagnostics\.every_n_steps=True: expected a whole number"),
        ({"every_n_steps": "100"}, r"diagnostics\.every_n_steps='100': expected a whole number"),
        ({"histograms_every_n_steps": -1}, r"histograms_every_n_steps=-1: .* at least 1, or null for never"),
        ({"figures_every_n_steps": 0}, r"figures_every_n_steps=0: .* at least 1, or null for never"),
    ],
)
def test_mistakes_are_told(monitor: type[Monitor], arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        monitor(**arguments)


def test_never_is_allowed() -> None:
    for monitor in MONITORS:
        made = monitor(histograms_every_n_steps=None, figures_every_n_steps=None)
        assert (made.every_n_steps, made.histograms_every_n_steps, made.figures_every_n_steps) == (100, None, None)


@pytest.mark.parametrize("monitor", MONITORS)
def test_shards_are_refused(monitor: type[Monitor]) -> None:
    class Sharded:
        strategy = FSDPStrategy()

    with pytest.raises(ValueError, match=rf"{monitor.__name__} cannot watch FSDPStrategy: .*ddp.*remove the callback"):
        monitor().setup(Sharded(), LightningModule(), "fit")


def test_other_stages_need_nothing(make_trainer: Callable[..., Trainer]) -> None:
    """Validating and testing pass the monitors by."""

    class Evaluated(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.act = nn.Tanh()

        def validation_step(self, batch: Tensor, batch_idx: int) -> None:
            self.act(batch)

        test_step = predict_step = validation_step

    trainer = make_trainer(callbacks=[monitor(1) for monitor in MONITORS], limit_val_batches=2)
    data = DataLoader(torch.randn(4, 3))
    trainer.validate(Evaluated(), data, verbose=False)
    trainer.test(Evaluated(), data, verbose=False)
    assert not SharedObservation._of_trainer.get(trainer)


@pytest.mark.parametrize(("every", "observed_every"), [(100, 100), (1, 96), (30, 50)])
def test_the_history_is_bounded_and_even(every: int, observed_every: int) -> None:
    """Also where batches of many steps make every observed step a multiple of 32, or an odd multiple of the cadence."""
    monitor = UpdateMonitor(every)
    for step in range(0, observed_every * 10 * MAX_POINTS, observed_every):
        monitor.remember(step, {"w": -3.0})
        assert len(monitor._history["w"]) <= MAX_POINTS
        assert monitor._history["w"][-1][0] == step
    points = monitor.state_dict()["history"]["w"]
    assert len(points) >= MAX_POINTS // 4
    assert points[0][0] == 0
    gaps = [later[0] - earlier[0] for earlier, later in itertools.pairwise(points)]
    assert max(gaps) <= 8 * step / MAX_POINTS  # the beginning has its share of them


def test_a_ratio_that_does_not_exist_is_not_kept() -> None:
    monitor = UpdateMonitor()
    for step, value in enumerate([float("-inf"), float("nan"), -2.0]):
        monitor.measure(ObservedStep(step, {"update_to_data": {"w": value}}, shapes={"w": torch.Size((2, 2))}))
    assert monitor.state_dict()["history"] == {"w": [[2, -2.0]]}


class Relu(LightningModule):
    """Four relu units with weight 0: which of them respond is what the biases of the batch say."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 4)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return torch.relu(batch + 0 * self.linear(batch[:, :1])).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_a_unit_is_dead_when_the_window_has_not_seen_it(
    make_trainer: Callable[..., Trainer], monitored: Callable[..., Any], tmp_path: Any
) -> None:
    """Unit 0 responds always, 1 at step 0 alone, 2 at step 3 alone, 3 never; the window is of 20 observed steps."""
    window, steps = 20, 26
    batches = torch.full((steps, 3, 4), -1.0)
    batches[:, 1, 0] = 1
    batches[0, 2, 1] = 1
    batches[3, 0, 2] = 1
    trainer = make_trainer(callbacks=[ActivationMonitor(1, None, None)], max_steps=steps)
    trainer.fit(Relu(), DataLoader(batches, batch_size=None))
    dead = [tags["dead_units/relu"] for tags in monitored(tmp_path / "run").values()]
    expected = [
        1 - batches[max(0, s + 1 - window) : s + 1].gt(0).flatten(0, 1).any(0).float().mean().item()
        for s in range(steps)
    ]
    assert dead == expected
    assert sorted(set(dead)) == [0.25, 0.5, 0.75]
