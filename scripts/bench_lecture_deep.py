"""The whole of `experiment=lecture_deep` against the notebook's loop with its statistics, on the same machine.

    python scripts/bench.py lecture_deep [--pairs 1] [--steps 200000] [--threads 1] [--quick] [--json FILE]

Ours is compiled, with default diagnostics, TensorBoard and the progress bar; the time to compile counts. The loop is
the notebook's: gradients of the activations kept, the loss and update:data of every parameter read at each step.
"""

import json
import statistics
import sys
from pathlib import Path

import torch
from bench_fit import timed_fit
from bench_loops import lecture_loop
from hydra import compose, initialize_config_dir
from rich.console import Console
from rich.table import Table

from bnlm.assembly import build_data
from bnlm.config import CONF

#: Turns in which the steps are taken: each side has a part of its own in every one, next to the other's.
PARTS = 10


def bench_lecture_deep(turns: int, threads: int, quick: bool, json_file: Path | None, steps: int | None = None) -> None:
    """Measure and print; ``quick`` is few steps, to see that everything runs."""
    torch.set_num_threads(threads)
    turns, steps = (1, 300) if quick else (turns, 200_000 if steps is None else steps)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        data = build_data(compose("train", ["experiment=lecture_deep", "data=names"]))
    given = (*data.examples("train"), data.vocab_size)
    overrides = ["experiment=lecture_deep", "data=names", "compile=true"]
    results: dict[str, list[float]] = {"loop": [], "bnlm": [], "of it compiling": [], "ratio": []}
    for turn in range(turns):
        parts = max(1, PARTS // 2)
        first = sum(lecture_loop(*given, steps // PARTS) for _ in range(parts))
        seconds, compiling, _ = timed_fit(steps, overrides)
        loop = first + sum(lecture_loop(*given, steps // PARTS) for _ in range(PARTS - parts))
        for key, value in zip(results, (loop, seconds, compiling, loop / seconds), strict=True):
            results[key].append(value)
        print(f"turn {turn + 1} of {turns}", file=sys.stderr)
    table = Table("", "median", "each", title=f"{steps:,} steps of lecture_deep, seconds")
    for name, values in results.items():
        table.add_row(name, f"{statistics.median(values):.2f}", ", ".join(f"{value:.2f}" for value in values))
    Console(width=100).print(table)
    print(f"{turns} turns, {threads} thread(s), torch {torch.__version__}")
    if json_file is not None:
        json_file.write_text(json.dumps({"steps": steps, "threads": threads, "results": results}, indent=2))
