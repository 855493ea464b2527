"""The data path alone: minibatches a second, ours against torch's DataLoader, in turns, in one process.

    python scripts/bench.py data [--pairs 9] [--threads 1] [--quick] [--json FILE]

32 windows of 3 characters each: drawn by `Minibatches` in chunks of 50 and one by one, by a loop that indexes the
tensors itself, and by a shuffling DataLoader over a TensorDataset, in the process of the training. Processor time.
"""

import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from bnlm.assembly import build_data
from bnlm.config import CONF
from bnlm.data import Minibatches

BATCH = 32


def drawn_by_us(contexts: Tensor, targets: Tensor, steps_per_batch: int) -> Iterator[Tensor]:
    taken = [0]
    source = Minibatches(
        contexts, targets, batch_size=BATCH, steps_per_batch=steps_per_batch, seed=0, current_step=lambda: taken[0]
    )
    while True:
        for x, y in source:
            for context, _ in zip(x.unbind(), y.unbind(), strict=True):
                yield context
            taken[0] += len(y)


def indexed(contexts: Tensor, targets: Tensor) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(0)
    while True:
        index = torch.randint(len(targets), (BATCH,), generator=generator)
        x, _ = contexts[index], targets[index]
        yield x


def loaded(contexts: Tensor, targets: Tensor) -> Iterator[Tensor]:
    while True:
        for x, _ in DataLoader(TensorDataset(contexts, targets), batch_size=BATCH, shuffle=True):
            yield x


def bench_data(turns: int, threads: int, quick: bool, json_file: Path | None) -> None:
    """Measure and print all; ``quick`` is one turn of few minibatches, to see that everything runs."""
    torch.set_num_threads(threads)
    turns, steps = (1, 200) if quick else (turns, 5000)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        contexts, targets = build_data(compose("train", ["data=names"])).examples("train")
    ways: dict[str, Callable[[], Iterator[Tensor]]] = {
        "DataLoader over a TensorDataset": lambda: loaded(contexts, targets),
        "tensors indexed in the loop": lambda: indexed(contexts, targets),
        "bnlm, steps_per_batch=1": lambda: drawn_by_us(contexts, targets, 1),
        "bnlm, steps_per_batch=50": lambda: drawn_by_us(contexts, targets, 50),
    }
    sources = {name: make() for name, make in ways.items()}
    results: dict[str, dict[str, list[float]]] = {name: {"per_second": [], "ratio": []} for name in ways}
    for source in sources.values():
        assert next(source).shape == (BATCH, contexts.shape[1])
    for turn in range(turns):
        seconds = {}
        for name in sources if turn % 2 == 0 else reversed(sources):
            started = time.process_time()
            for _ in range(steps):
                next(sources[name])
            seconds[name] = time.process_time() - started
        first = next(iter(seconds)) if turn % 2 == 0 else list(seconds)[-1]
        for name, value in seconds.items():
            results[name]["per_second"].append(steps / value)
            results[name]["ratio"].append(seconds[first] / value)
    table = Table("way", "minibatches/s", "ratio to the first", "lowest .. highest")
    for name, found in results.items():
        ratio = found["ratio"]
        table.add_row(
            name,
            f"{statistics.median(found['per_second']):,.0f}",
            f"{statistics.median(ratio):.2f}",
            f"{min(ratio):.2f} .. {max(ratio):.2f}",
        )
    Console(width=100).print(table)
    print(f"{steps:,} minibatches, {turns} turns, {threads} thread(s), torch {torch.__version__}")
    if json_file is not None:
        json_file.write_text(json.dumps({"turns": turns, "threads": threads, "results": results}, indent=2))
