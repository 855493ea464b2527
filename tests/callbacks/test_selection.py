"""Which layers and parameters the monitors watch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from bnlm.callbacks import ActivationMonitor, GradientMonitor, UpdateMonitor
from bnlm.callbacks.monitor import Monitor

MakeTrainer = Callable[..., Trainer]
Monitored = Callable[[Path], dict[int, dict[str, float]]]

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")


class Network(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh())
        self.head = nn.Linear(4, 2)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self.head(self.encoder(batch)).sum()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def fit(make_trainer: MakeTrainer, *monitors: Monitor) -> None:
    trainer = make_trainer(callbacks=list(monitors), max_steps=2)
    trainer.fit(Network(), DataLoader(torch.randn(10, 3), batch_size=5))


def of(tags: dict[str, float], statistic: str) -> set[str]:
    return {tag.partition("/")[2] for tag in tags if tag.startswith(f"{statistic}/")}


def test_layers_by_pattern(make_trainer: MakeTrainer, monitored: Monitored, tmp_path: Path) -> None:
    fit(make_trainer, ActivationMonitor(1, include=["encoder.*"], exclude=["*.3"]))
    for tags in monitored(tmp_path / "run").values():
        assert of(tags, "activation_std") == of(tags, "saturation") == {"encoder.1"}


def test_parameters_by_pattern_and_size(make_trainer: MakeTrainer, monitored: Monitored, tmp_path: Path) -> None:
    fit(make_trainer, GradientMonitor(1, exclude=["*.bias"]), UpdateMonitor(1, min_elements=5))
    for tags in monitored(tmp_path / "run").values():
        assert of(tags, "grad_to_data") == {"encoder.0.weight", "encoder.2.weight", "head.weight"}
        assert of(tags, "update_to_data") == {"encoder.0.weight", "encoder.2.weight", "head.weight"}
        assert "gradient_norm/total" in tags


@pytest.mark.parametrize("monitor", [ActivationMonitor, GradientMonitor, UpdateMonitor])
@pytest.mark.parametrize("option", ["include", "exclude"])
def test_a_pattern_that_matches_nothing(monitor: type[Monitor], option: str, make_trainer: MakeTrainer) -> None:
    message = rf"{monitor.__name__}\({option}=\['decoder\.\*'\]\): 'decoder\.\*' matches nothing\. There are: encoder"
    with pytest.raises(ValueError, match=message):
        fit(make_trainer, monitor(1, **{option: ["decoder.*"]}))


@pytest.mark.parametrize("option", ["include", "exclude"])
def test_a_pattern_is_no_list(option: str) -> None:
    with pytest.raises(ValueError, match=rf"{option}='encoder': expected a list of patterns"):
        ActivationMonitor(**{option: "encoder"})


@pytest.mark.parametrize("monitor", [GradientMonitor, UpdateMonitor])
def test_min_elements_is_a_number(monitor: Any) -> None:
    with pytest.raises(ValueError, match=r"min_elements=0: expected a whole number of at least 1"):
        monitor(min_elements=0)


def test_the_last_figure_of_a_run_in_epochs(make_trainer: MakeTrainer, tmp_path: Path, events: Callable) -> None:
    trainer = make_trainer(callbacks=[UpdateMonitor(2)], max_epochs=3, max_steps=-1)
    trainer.fit(Network(), DataLoader(torch.randn(10, 3), batch_size=5))
    assert [image.step for image in events(tmp_path / "run").Images("figures/update_to_data")] == [0, 4]
