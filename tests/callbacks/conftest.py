"""What the tests of the callbacks share: small data, quiet trainers, what was written, and what was left behind."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.nn.modules import module as hooks

Scalars = dict[int, dict[str, float]]


def left_behind(*roots: nn.Module) -> list[str]:
    """Name what an observer has not taken off."""
    found = [f"mode {mode}" for mode in torch.overrides._get_current_function_mode_stack()]
    found += ["global hook"] * (len(hooks._global_forward_hooks) + len(hooks._global_forward_pre_hooks))
    found += ["global hook"] * (len(hooks._global_backward_hooks) + len(hooks._global_backward_pre_hooks))
    found += ["global hook"] * len(hooks._global_forward_hooks_always_called)
    for root in roots:
        for path, module in root.named_modules():
            found += [f"hook on {path}"] * (len(module._forward_hooks) + len(module._forward_pre_hooks))
            found += [f"hook on {path}"] * (len(module._backward_hooks) + len(module._backward_pre_hooks))
    stance = torch._dynamo.eval_frame._stance.stance
    return found + ([] if stance == "default" else [f"stance {stance}"])


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    yield
    assert left_behind() == []


@pytest.fixture
def leftovers() -> Callable[..., list[str]]:
    return left_behind


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
