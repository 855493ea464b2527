"""What the monitors and the doctor cost on a plain LightningModule, in turns, in one process.

    python scripts/bench.py diagnostics [--pairs 25] [--threads 1] [--quick] [--json FILE]

A turn trains the same network for a second or a few, without a callback and with all three monitors and the doctor, one
directly after the other: where other programs take a share of the machine that changes, many short turns tell more than
a few long ones. Several cadences are measured, and on the lecture's deep network each callback alone; histograms and
figures are off. Compared is processor time from step 201 on (before, the doctor looks at every tenth step, whatever the
cadence) until all that was observed is read and written; what happens once at the end of a run does not count.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from bnlm.callbacks import ActivationMonitor, Doctor, GradientMonitor, UpdateMonitor
from bnlm.callbacks.monitor import Monitor

ALONE = ("ActivationMonitor", "GradientMonitor", "UpdateMonitor", "Doctor")
#: By network: optimizer steps of a turn, one in how many of the turns it takes, and callbacks with their cadences.
PLANS: dict[str, tuple[int, int, tuple[tuple[str, int], ...]]] = {
    "deep_mlp": (1201, 1, (("all", 100), ("all", 50), ("all", 10), *((name, 100) for name in ALONE))),
    "conv_net": (401, 5, (("all", 50),)),
    "transformer": (301, 5, (("all", 50),)),
}
CLASSES = 27
#: Until then the doctor looks at every tenth step, whatever the cadence.
START = 201


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
    """All monitors and the doctor, the one of that name alone, or none; without histograms and figures."""
    if which == "none":
        return []
    off = {"histograms_every_n_steps": None, "figures_every_n_steps": None}
    monitors = [kind(every_n_steps, **off) for kind in (ActivationMonitor, GradientMonitor, UpdateMonitor)]
    callbacks = [*monitors, Doctor(every_n_steps, table=False)]
    return [each for each in callbacks if which in ("all", type(each).__name__)]


class Clock(Callback):
    """Processor time from `START` on, when the doctor has ceased to look more often than it is told to."""

    def __init__(self) -> None:
        self.started = 0.0
        self.seconds = 0.0

    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        if trainer.global_step == min(START, trainer.max_steps - 1):
            self.started = time.process_time()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Monitor):
                callback.read()
        self.seconds = time.process_time() - self.started


def seconds_of(
    make: Callable[[], tuple[nn.Module, tuple[Tensor, Tensor]]], steps: int, callbacks: list[Callback]
) -> float:
    """Return the processor seconds of training from step `START` on."""
    clock = Clock()
    torch.manual_seed(0)
    model, batch = make()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            accelerator="cpu",
            max_steps=steps,
            max_epochs=-1,
            callbacks=[clock, *callbacks],
            logger=TensorBoardLogger(folder),
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        module, loader = Plain(model), DataLoader(Same(batch), batch_size=None)
        trainer.fit(module, loader)
    return clock.seconds


def bench_diagnostics(turns: int, threads: int, quick: bool, json_file: Path | None) -> None:
    """Measure and print all; ``quick`` is one turn of few steps, to see that everything runs."""
    torch.set_num_threads(threads)
    results: dict[str, dict[str, list[float]]] = {}
    table = Table("network", "ms a step", "callbacks", "observed every", "turns", "extra time", "quartiles")
    for make in (deep_mlp, conv_net, transformer):
        steps, every_nth_turn, ways = PLANS[make.__name__]
        steps, taken = (20, 1) if quick else (steps, max(1, turns // every_nth_turn))
        found: dict[tuple[str, int], list[tuple[float, float]]] = {way: [] for way in ways}
        seconds_of(make, 20, watched("all", 10))  # the first run imports and fills caches
        for turn in range(taken):
            for name, cadence in ways:
                pair = [("none", 0), (name, cadence)]
                seconds = {way: seconds_of(make, steps, watched(*way)) for way in (pair if turn % 2 else pair[::-1])}
                found[name, cadence].append((seconds["none", 0], seconds[name, cadence]))
        plain = statistics.median(p for pairs in found.values() for p, _ in pairs) / max(1, steps - START) * 1e3
        results[make.__name__] = {"ms": [plain]}
        for name, cadence in ways:
            extra = [b / a - 1 for a, b in found[name, cadence]]
            results[make.__name__][f"{name} {cadence}"] = extra
            low, middle, high = statistics.quantiles(extra, n=4) if len(extra) > 1 else extra * 3
            spread = f"{low:.1%} .. {high:.1%}"
            table.add_row(make.__name__, f"{plain:.2f}", name, f"{cadence} steps", str(taken), f"{middle:.1%}", spread)
        print(f"{make.__name__} done", file=sys.stderr)
    Console(width=110).print(table)
    print(f"{threads} thread(s), torch {torch.__version__}")
    if json_file is not None:
        json_file.write_text(json.dumps({"turns": turns, "threads": threads, "results": results}, indent=2))
