"""What the tests of the callbacks share: small data, quiet trainers, and what was written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

Scalars = dict[int, dict[str, float]]


def read(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "histograms": 0, "images": 0, "tensors": 0})
    events.Reload()
    return events


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
