"""What the monitors and the doctor cost on a plain LightningModule, in turns, in one process.

    python scripts/bench.py diagnostics [--pairs 25] [--threads 1] [--quick] [--json FILE]

A network is trained with all three monitors and the doctor, and without any callback, in turns of as many steps as lie
between two observed ones, within the same run: where other programs take a share of the machine that changes, and runs
differ by a few percent in where their memory lies, only this tells a percent. In the turns without callbacks one call
of a Python function is left at the optimizer, under a thousandth of a step. Several cadences are measured, and on the
lecture's deep network each callback alone; histograms and figures are off. Compared is processor time, from where the
doctor has ceased to look at every tenth step, in groups of turns that each contain all that is read and written of
them.
"""

import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from bnlm.callbacks import ActivationMonitor, Doctor, GradientMonitor, UpdateMonitor

ALONE = ("ActivationMonitor", "GradientMonitor", "UpdateMonitor", "Doctor")
#: By network: turns of a group, one in how many groups it takes, and callbacks with their cadences.
PLANS: dict[str, tuple[int, int, tuple[tuple[str, int], ...]]] = {
    "deep_mlp": (10, 1, (("all", 100), ("all", 50), ("all", 10), *((name, 100) for name in ALONE))),
    "conv_net": (10, 5, (("all", 50),)),
    "transformer": (1, 5, (("all", 50),)),
}
CLASSES = 27
#: A multiple of all cadences and turns, after the doctor's first 200 steps.
START = 400


class Same(IterableDataset[tuple[Tensor, Tensor]]):
    """One batch, again and again: what is measured is not the data."""

    def __init__(self, batch: tuple[Tensor, Tensor]) -> None:
        self.batch = batch

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield self.batch


class Plain(LightningModule):
    """A LightningModule as people write them: automatic optimization, one step a batch."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        logits = self.model(batch[0])
        return F.cross_entropy(logits.flatten(0, -2), batch[1].flatten())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def deep_mlp() -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    """The lecture's deep network: five tanh layers of 100 with BatchNorm, 32 contexts of 3 characters."""
    layers: list[nn.Module] = [nn.Embedding(CLASSES, 10), nn.Flatten()]
    for fan_in in (30, 100, 100, 100, 100):
        layers += [nn.Linear(fan_in, 100, bias=False), nn.BatchNorm1d(100), nn.Tanh()]
    layers += [nn.Linear(100, CLASSES, bias=False), nn.BatchNorm1d(CLASSES)]
    return nn.Sequential(*layers), (torch.randint(CLASSES, (32, 3)), torch.randint(CLASSES, (32,)))


def conv_net() -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    """Four 3x3 convolutions of 32 channels with BatchNorm2d and ReLU, 32 pictures of 3 x 16 x 16."""
    layers: list[nn.Module] = []
    for channels in (3, 32, 32, 32):
        layers += [nn.Conv2d(channels, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU()]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, CLASSES)]
    return nn.Sequential(*layers), (torch.randn(32, 3, 16, 16), torch.randint(CLASSES, (32,)))


def transformer() -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    """Six layers of width 384 with GELU, 4 sequences of 32."""
    layer = nn.TransformerEncoderLayer(384, 6, 4 * 384, 0.0, F.gelu, batch_first=True, norm_first=True)
    model = nn.Sequential(
        nn.Embedding(CLASSES, 384), nn.TransformerEncoder(layer, 6, enable_nested_tensor=False), nn.Linear(384, CLASSES)
    )
    return model, (torch.randint(CLASSES, (4, 32)), torch.randint(CLASSES, (4, 32)))


def watched(which: str, every_n_steps: int) -> list[Callback]:
    """All monitors and the doctor, or the one of that name alone; without histograms and figures."""
    off = {"histograms_every_n_steps": None, "figures_every_n_steps": None}
    monitors = [kind(every_n_steps, **off) for kind in (ActivationMonitor, GradientMonitor, UpdateMonitor)]
    callbacks = [*monitors, Doctor(every_n_steps, table=False)]
    return [each for each in callbacks if which in ("all", type(each).__name__)]


class Turns(Callback):
    """Takes the other callbacks away for every second turn of so many steps; to be the last of them.

    Attributes:
        seconds: Processor time of each turn, the first one with them.
    """

    def __init__(self, others: list[Callback], steps: int, start: int) -> None:
        self.others = others
        self.steps = steps
        self.start = start
        self.seconds: list[float] = []
        self._since: float | None = None
        self._without = True

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        step = trainer.global_step
        if step < self.start or step % self.steps:
            return
        if self._since is not None:
            self.seconds.append(time.process_time() - self._since)
        self._without = not self._without
        trainer.callbacks = [self] if self._without else [*self.others, self]  # type: ignore[attr-defined]
        self._since = time.process_time()


def seconds_of(
    make: Callable[[], tuple[nn.Module, tuple[Tensor, Tensor]]],
    callbacks: list[Callback],
    start: int,
    steps: int,
    turns: int,
) -> tuple[list[float], list[float]]:
    """Return the processor seconds of so many turns of so many steps with the callbacks, and of those without."""
    clock = Turns(callbacks, steps, start)
    torch.manual_seed(0)
    model, batch = make()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            accelerator="cpu",
            max_steps=start + 2 * turns * steps,
            max_epochs=-1,
            callbacks=[*callbacks, clock],
            logger=TensorBoardLogger(folder),
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        module, loader = Plain(model), DataLoader(Same(batch), batch_size=None)
        trainer.fit(module, loader)
    return clock.seconds[::2], clock.seconds[1::2]


def bench_diagnostics(turns: int, threads: int, quick: bool, json_file: Path | None) -> None:
    """Measure and print all, in so many groups of turns at every 100; ``quick`` is one turn, to see that all runs."""
    torch.set_num_threads(threads)
    results: dict[str, dict[str, list[float]]] = {}
    table = Table("network", "ms a step", "callbacks", "observed every", "groups", "extra time", "quartiles", "error")
    for make in (deep_mlp, conv_net, transformer):
        size, every_nth, ways = PLANS[make.__name__]
        results[make.__name__] = {}
        seconds_of(make, watched("all", 10), 10, 10, 1)  # the first run imports and fills caches
        for name, cadence in ways:
            # At shorter cadences more groups, so that each takes as many steps.
            size, groups = (1, 1) if quick else (size, max(1, turns // every_nth) * max(1, 100 // cadence // every_nth))
            start, steps = (10, 10) if quick else (START, cadence)
            sides = [np.array(side) for side in seconds_of(make, watched(name, cadence), start, steps, size * groups)]
            with_callbacks, without = (side.reshape(groups, size).sum(axis=1) for side in sides)
            extra = (with_callbacks / without - 1).tolist()
            results[make.__name__][f"{name} {cadence}"] = extra
            low, middle, high = statistics.quantiles(extra, n=4) if groups > 1 else extra * 3
            error = statistics.stdev(extra) / math.sqrt(groups) if groups > 1 else math.nan
            plain = float(np.median(without)) / (size * steps) * 1e3
            row = (f"{plain:.2f}", name, f"{cadence} steps", str(groups), f"{middle:.1%}", f"{low:.1%} .. {high:.1%}")
            table.add_row(make.__name__, *row, f"{error:.1%}")
        print(f"{make.__name__} done", file=sys.stderr)
    Console(width=120).print(table)
    print(f"{threads} thread(s), torch {torch.__version__}; error: standard error of the mean over the groups")
    if json_file is not None:
        json_file.write_text(json.dumps({"turns": turns, "threads": threads, "results": results}, indent=2))
