"""Steps per second of training, ours in its variants and three other loops, in turns, in one process.

    python scripts/bench.py training [--pairs 5] [--steps 20000] [--threads 1] [--quick] [--json FILE]

Of each variant the median and the quartiles, and turn by turn its ratio to the bare loop; of replicas the steps of all
networks together count. The time to compile is left out.
"""

import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from bench_fit import timed_fit
from bench_loops import bare_loop, lecture_loop, lightning_loop
from hydra import compose, initialize_config_dir
from rich.console import Console
from rich.table import Table

from bnlm.config import CONF, build


def ours(steps: int, *overrides: str) -> float:
    """Seconds of `Trainer.fit` as `bnlm.train experiment=lecture_deep` runs it, without validation and compilation.

    With normalization=batch, which divides by the biased variance as torch.nn.BatchNorm1d does.
    """
    seconds, compiling, _ = timed_fit(
        steps, ["experiment=lecture_deep", "data=names", "normalization=batch", *overrides]
    )
    if compiling:
        print(f"compiled in {compiling:.1f} s", file=sys.stderr)
    return seconds - compiling


def replicas(steps: int, count: int, *overrides: str) -> float:
    """Seconds for `steps` steps of one network where `count` are trained at once: compiled, default diagnostics."""
    taken = max(1, steps // 4)  # enough to be timed: each is a step of all of them
    seconds = ours(taken, f"replicas={count}", "diagnostics.figures_every_n_steps=20000", "compile=true", *overrides)
    return seconds * steps / (taken * count)


def measure(variants: dict[str, Callable[[], float]], pairs: int, steps: int) -> dict[str, dict[str, list[float]]]:
    """Run all variants in turns, `pairs` times; return steps/s and ratios to the first variant of the same turn."""
    results: dict[str, dict[str, list[float]]] = {name: {"steps_per_second": [], "ratio": []} for name in variants}
    for turn in range(pairs):
        names = list(variants)
        order = names if turn % 2 == 0 else names[::-1]  # neither side always runs on the warmer machine
        seconds = {name: variants[name]() for name in order}
        for name in names:
            results[name]["steps_per_second"].append(steps / seconds[name])
            results[name]["ratio"].append(seconds[names[0]] / seconds[name])
        print(f"turn {turn + 1} of {pairs}", file=sys.stderr)
    return results


def bench_training(turns: int, threads: int, quick: bool, json_file: Path | None, steps: int | None = None) -> None:
    """Measure and print all; ``quick`` is one turn of few steps, to see that everything runs."""
    torch.set_num_threads(threads)
    turns, steps = (1, 300) if quick else (turns, 20_000 if steps is None else steps)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        data = build(compose("train", ["experiment=lecture_deep", "data=names"]).data, "data")
    given = (*data.examples("train"), data.vocab_size)
    rates = [0.1 * 0.97**i for i in range(16)]
    figures = "diagnostics.figures_every_n_steps=20000"
    variants: dict[str, Callable[[], float]] = {
        "bare torch.nn loop, no diagnostics": lambda: bare_loop(*given, steps),
        "loop in the notebook's style": lambda: 4 * lecture_loop(*given, steps // 4),
        "Lightning as people write it": lambda: 4 * lightning_loop(*given, steps // 4),
        "bnlm, default diagnostics, TensorBoard, bar": lambda: ours(steps, figures),
        "bnlm, diagnostics=off": lambda: ours(steps, "diagnostics=off"),
        "bnlm, compiled, default diagnostics, TensorBoard, bar": lambda: ours(steps, figures, "compile=true"),
        "bnlm, compiled, diagnostics=off": lambda: ours(steps, "diagnostics=off", "compile=true"),
        "bnlm, compiled, default diagnostics, 16 replicas": lambda: replicas(steps, 16),
        "bnlm, the same with a rate for each": lambda: replicas(steps, 16, f"optimizer.lr={rates}"),
        "bnlm, compiled, default diagnostics, 64 replicas": lambda: replicas(steps, 64),
    }
    bare_loop(*given, 100)
    lightning_loop(*given, 100)
    ours(100)
    results = measure(variants, turns, steps)

    table = Table("variant", "steps/s", "quartiles", "ratio to the first", "quartiles")
    for name, values in results.items():
        row = []
        for key, form in (("steps_per_second", ",.0f"), ("ratio", ".3f")):
            found = values[key]
            low, _, high = statistics.quantiles(found, n=4) if len(found) > 1 else found * 3
            row += [format(statistics.median(found), form), f"{format(low, form)} .. {format(high, form)}"]
        table.add_row(name, *row)
    Console(width=130).print(table)
    print(f"{steps:,} steps, {turns} turns, {threads} thread(s), torch {torch.__version__}")
    if json_file is not None:
        json_file.write_text(json.dumps({"steps": steps, "threads": threads, "results": results}, indent=2))
