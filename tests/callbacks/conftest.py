"""What the tests of the callbacks share: small data, quiet trainers, and what was written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from bnlm.callbacks import Doctor
from bnlm.doctor import Finding

Scalars = dict[int, dict[str, float]]


def read(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "histograms": 0, "images": 0, "tensors": 0})
    events.Reload()
    return events


class Normalized(LightningModule):
    """Five classes by one hidden layer with a normalization."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(20, 32, bias=False), norm, nn.ReLU(), nn.Linear(32, 5))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val_loss", F.cross_entropy(self.net(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture
def trained_with(make_trainer: Callable[..., Trainer]) -> Callable[..., dict[str, Finding]]:
    """Train a network with this normalization in batches of this size; return what the doctor finds, by rule."""

    def train(norm: nn.Module, size: int = 32, of_validation: int = 320) -> dict[str, Finding]:
        generator = torch.Generator().manual_seed(0)
        x = 3 + 2 * torch.randn(size * 40, 20, generator=generator)
        y = ((x - 3) @ torch.randn(20, 5, generator=generator)).argmax(1)
        data = TensorDataset(x, y)
        doctor = Doctor(10, table=False)
        options = {"max_steps": 200, "val_check_interval": 20, "limit_val_batches": 1.0}
        trainer = make_trainer(callbacks=[doctor], **options)
        trainer.fit(Normalized(norm), DataLoader(data, batch_size=size), DataLoader(data, batch_size=of_validation))
        return {finding.rule: finding for finding in doctor.findings}

    return train


@pytest.fixture
def events() -> Callable[[Path], EventAccumulator]:
    """Read a folder of event files."""
    return read


@pytest.fixture
def monitored() -> Callable[[Path], Scalars]:
    """Read the monitors' scalars, step -> tag -> value: all but the losses."""

    def scalars(folder: Path) -> Scalars:
        events = read(folder)
        found: Scalars = {}
        for tag in events.Tags()["scalars"]:
            if tag.partition("/")[0] in ("train", "val", "test", "epoch", "loss"):
                continue
            for event in events.Scalars(tag):
                assert tag not in found.setdefault(event.step, {}), f"{tag} was written twice at {event.step}"
                found[event.step][tag] = event.value
        return found

    return scalars


@pytest.fixture
def make_trainer(tmp_path: Path) -> Callable[..., Trainer]:
    """Make a quiet trainer; its event files are in `tmp_path / name`."""

    def make(name: str = "run", **options: Any) -> Trainer:
        settings: dict[str, Any] = {
            "accelerator": "cpu",
            "logger": TensorBoardLogger(tmp_path, name=name, version=""),
            "max_epochs": -1,
            "log_every_n_steps": 1,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "limit_val_batches": 0,
            "num_sanity_val_steps": 0,
        }
        return Trainer(**(settings | options))

    return make
