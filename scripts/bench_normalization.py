"""What a normalization layer costs beside torch.nn's, in turns, in one process.

    python scripts/bench.py normalization [--pairs 25] [--threads 1] [--quick] [--json FILE]

One measurement is forward and backward of one layer in training mode, the gradients of input and parameters included.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from bnlm.normalization import BatchNorm, BatchRenorm, DynamicTanh, GhostBatchNorm, GroupNorm, LayerNorm, RMSNorm

SHAPES = [(32, 100), (256, 512), (64, 64, 32, 32)]
SECONDS = 0.03  # of one layer in one turn: long enough for the clock, short enough that both meet the same machine

Layers = dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module]]]


def pairs_of(shape: tuple[int, ...]) -> Layers:
    """Return ours and the torch.nn layer it is compared with, by name; the kin of LayerNorm take the last dimension."""
    channels, last = shape[1], shape[-1]
    batch_norm = nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d
    groups = GroupNorm(channels, 8).num_groups
    return {
        "batch | BatchNorm": (lambda: BatchNorm(channels), lambda: batch_norm(channels)),
        "batch, unbiased | BatchNorm": (lambda: BatchNorm(channels, unbiased=True), lambda: batch_norm(channels)),
        "ghost_batch, 16 | BatchNorm": (lambda: GhostBatchNorm(channels, 16), lambda: batch_norm(channels)),
        "batch_renorm | BatchNorm": (lambda: BatchRenorm(channels), lambda: batch_norm(channels)),
        "layer | LayerNorm": (lambda: LayerNorm(last), lambda: nn.LayerNorm(last)),
        "rms | RMSNorm": (lambda: RMSNorm(last), lambda: nn.RMSNorm(last)),
        "group | GroupNorm": (lambda: GroupNorm(channels, 8), lambda: nn.GroupNorm(groups, channels)),
        "dyt | LayerNorm": (lambda: DynamicTanh(last), lambda: nn.LayerNorm(last)),
    }


def compiled(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """Return a maker of the same layer under `torch.compile`, specialised to its one shape."""
    return lambda: torch.compile(make(), fullgraph=True, dynamic=False)


def run(layer: nn.Module, x: Tensor, grad: Tensor, times: int) -> float:
    """Return the seconds of one forward and backward, over ``times`` of them."""
    parameters = list(layer.parameters())
    started = time.perf_counter()
    for _ in range(times):
        x.grad = None
        for parameter in parameters:
            parameter.grad = None
        layer(x).backward(grad)
    return (time.perf_counter() - started) / times


def in_turns(ours: nn.Module, theirs: nn.Module, shape: tuple[int, ...], turns: int) -> dict[str, list[float]]:
    """Return the seconds of both layers and the ratio ours / theirs of each turn."""
    generator = torch.Generator().manual_seed(0)
    x, grad = (torch.randn(shape, generator=generator) for _ in range(2))
    x.requires_grad_()
    for layer in (ours, theirs):
        run(layer, x, grad, 3)  # the first calls compile, and fill the caches
    times = max(1, round(SECONDS / run(theirs, x, grad, 3)))
    found: dict[str, list[float]] = {"ours": [], "theirs": [], "ratio": []}
    for turn in range(turns):
        order = {"ours": ours, "theirs": theirs}
        for name in order if turn % 2 == 0 else reversed(order):
            found[name].append(run(order[name], x, grad, times))
        found["ratio"].append(found["ours"][-1] / found["theirs"][-1])
    return found


def measure(turns: int, shapes: list[tuple[int, ...]]) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Return `in_turns` by row of the table and shape: every layer eager, BatchNorm compiled too."""
    results: dict[str, dict[str, dict[str, list[float]]]] = {}
    for shape in shapes:
        torch.compiler.reset()  # what was compiled for another shape would be looked through first
        pairs = pairs_of(shape)
        rows = {f"{name} | eager": pair for name, pair in pairs.items()}
        for name in ("batch | BatchNorm", "batch, unbiased | BatchNorm"):
            ours, theirs = pairs[name]
            rows[f"{name} | compiled"] = (compiled(ours), compiled(theirs))
        for name, (ours, theirs) in rows.items():
            results.setdefault(name, {})[str(shape)] = in_turns(ours(), theirs(), shape, turns)
        print(f"{shape} done", file=sys.stderr)
    return results


def show(results: dict[str, dict[str, dict[str, list[float]]]], shapes: list[tuple[int, ...]]) -> None:
    """Print one row a layer: for each shape the ratio's median and quartiles, and the microseconds of ours."""
    table = Table("ours", "torch.nn", "")
    for shape in shapes:
        table.add_column(f"{shape}\nratio (quartiles), ours in µs", justify="right")
    for name, by_shape in results.items():
        cells = []
        for shape in shapes:
            found = by_shape[str(shape)]
            ratio = found["ratio"]
            low, middle, high = statistics.quantiles(ratio, n=4) if len(ratio) > 1 else ratio * 3
            micros = 1e6 * statistics.median(found["ours"])
            cells.append(f"{middle:.2f} ({low:.2f} .. {high:.2f}) {micros:8,.0f}")
        table.add_row(*name.split(" | "), *cells)
    Console(width=150).print(table)


def bench_normalization(turns: int, threads: int, quick: bool, json_file: Path | None) -> None:
    """Measure and print all; ``quick`` is one turn on the smallest shape, to see that everything runs."""
    torch.set_num_threads(threads)
    shapes = SHAPES[:1] if quick else SHAPES
    turns = 1 if quick else turns
    results = measure(turns, shapes)
    show(results, shapes)
    print(f"{turns} turns, {threads} thread(s), float32, torch {torch.__version__}")
    if json_file is not None:
        json_file.write_text(json.dumps({"turns": turns, "threads": threads, "results": results}, indent=2))
