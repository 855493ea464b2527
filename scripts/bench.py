"""How fast training is, against loops written here. Everything runs in one process, in turns, on the same threads.

    python scripts/bench.py [--pairs 5] [--steps 20000] [--threads 1] [--quick] [--json FILE]
    python scripts/bench.py normalization [--pairs 25] [--threads 1] [--quick] [--json FILE]
    python scripts/bench.py diagnostics [--pairs 5] [--threads 1] [--quick] [--json FILE]
    python scripts/bench.py models [--pairs 9] [--threads 1] [--quick] [--json FILE]

Prints steps per second of each variant (median, quartiles) and, pair by pair, its ratio to the bare loop; of replicas
the steps of all networks together count.
The second form times every normalization layer against torch.nn's instead, the third what the callbacks cost
others, the fourth every model against a loop in makemore.py's style.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ["FORCE_COLOR"] = "1"  # rich draws its progress bar though nobody looks

import torch
import torch.nn.functional as F
from bench_diagnostics import bench_diagnostics
from bench_fit import timed_fit
from bench_models import bench_models
from bench_normalization import bench_normalization
from hydra import compose, initialize_config_dir
from rich.console import Console
from rich.table import Table
from torch import nn

from bnlm.assembly import quieten
from bnlm.config import CONF, build

BATCH, CONTEXT, N_EMBD, HIDDEN, DEPTH = 32, 3, 10, 100, 5


def deep_mlp(vocab_size: int) -> nn.Sequential:
    """The lecture's deep network over torch.nn: five tanh layers, BatchNorm after every Linear, the output's too."""
    layers: list[nn.Module] = [nn.Embedding(vocab_size, N_EMBD), nn.Flatten()]
    fan_in = CONTEXT * N_EMBD
    for _ in range(DEPTH):
        layers += [nn.Linear(fan_in, HIDDEN, bias=False), nn.BatchNorm1d(HIDDEN), nn.Tanh()]
        fan_in = HIDDEN
    layers += [nn.Linear(HIDDEN, vocab_size, bias=False), nn.BatchNorm1d(vocab_size)]
    return nn.Sequential(*layers)


def bare_loop(contexts: torch.Tensor, targets: torch.Tensor, vocab_size: int, steps: int) -> float:
    """Seconds of a loop over torch.nn modules with torch.optim.SGD: no logging, no statistics, no Lightning."""
    model = deep_mlp(vocab_size)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(0)
    started = time.perf_counter()
    for _ in range(steps):
        index = torch.randint(len(targets), (BATCH,), generator=generator)
        loss = F.cross_entropy(model(contexts[index]), targets[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.perf_counter() - started


def lecture_loop(contexts: torch.Tensor, targets: torch.Tensor, vocab_size: int, steps: int) -> float:
    """Seconds of a loop in the notebook's style: gradients of activations kept, the loss and update:data each step."""
    model = deep_mlp(vocab_size)
    parameters = list(model.parameters())
    generator = torch.Generator().manual_seed(0)
    losses, updates = [], []
    started = time.perf_counter()
    for _ in range(steps):
        index = torch.randint(len(targets), (BATCH,), generator=generator)
        x = contexts[index]
        for layer in model:
            x = layer(x)
            x.retain_grad()
        loss = F.cross_entropy(x, targets[index])
        for p in parameters:
            p.grad = None
        loss.backward()
        for p in parameters:
            assert p.grad is not None
            p.data += -0.1 * p.grad
        losses.append(loss.log10().item())
        with torch.no_grad():
            updates.append([((0.1 * p.grad).std() / p.data.std()).log10().item() for p in parameters])
    return time.perf_counter() - started


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


def replicas(steps: int, count: int) -> float:
    """Seconds for `steps` steps of one network where `count` are trained at once: compiled, default diagnostics."""
    taken = max(1, steps // 4)  # enough to be timed: each is a step of all of them
    seconds = ours(taken, f"replicas={count}", "diagnostics.figures_every_n_steps=20000", "compile=true")
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "what", nargs="?", choices=["training", "normalization", "diagnostics", "models"], default="training"
    )
    parser.add_argument("--pairs", type=int, help="turns; 5 by default, of the short ones of normalization 25")
    parser.add_argument(
        "--steps", type=int, default=20_000, help="optimizer steps of each variant, each turn; training"
    )
    parser.add_argument("--threads", type=int, default=1, help="torch's threads, the same for all")
    parser.add_argument("--quick", action="store_true", help="one short turn, to see that everything runs")
    parser.add_argument("--json", type=Path, help="also write all measurements here")
    options = parser.parse_args()
    if options.what == "normalization":
        bench_normalization(
            25 if options.pairs is None else options.pairs, options.threads, options.quick, options.json
        )
        return
    if options.what == "diagnostics":
        quieten()
        bench_diagnostics(5 if options.pairs is None else options.pairs, options.threads, options.quick, options.json)
        return
    if options.what == "models":
        quieten()
        bench_models(9 if options.pairs is None else options.pairs, options.threads, options.quick, options.json)
        return
    pairs, steps = (1, 300) if options.quick else (5 if options.pairs is None else options.pairs, options.steps)
    torch.set_num_threads(options.threads)
    quieten()

    with initialize_config_dir(str(CONF), version_base="1.3"):
        data = build(compose("train", ["experiment=lecture_deep", "data=names"]).data, "data")
    contexts, targets = data.examples("train")
    variants: dict[str, Callable[[], float]] = {
        "bare torch.nn loop, no diagnostics": lambda: bare_loop(contexts, targets, data.vocab_size, steps),
        "loop in the notebook's style": lambda: 4 * lecture_loop(contexts, targets, data.vocab_size, steps // 4),
        "bnlm, default diagnostics, TensorBoard, bar": lambda: ours(steps, "diagnostics.figures_every_n_steps=20000"),
        "bnlm, diagnostics=off": lambda: ours(steps, "diagnostics=off"),
        "bnlm, compiled, default diagnostics, TensorBoard, bar": lambda: ours(
            steps, "diagnostics.figures_every_n_steps=20000", "compile=true"
        ),
        "bnlm, compiled, diagnostics=off": lambda: ours(steps, "diagnostics=off", "compile=true"),
        "bnlm, compiled, default diagnostics, 16 replicas": lambda: replicas(steps, 16),
        "bnlm, compiled, default diagnostics, 64 replicas": lambda: replicas(steps, 64),
    }
    for warm_up in (
        lambda: bare_loop(contexts, targets, data.vocab_size, 100),
        lambda: ours(100),
    ):
        warm_up()
    results = measure(variants, pairs, steps)

    table = Table("variant", "steps/s", "quartiles", "ratio to the first", "quartiles")
    for name, values in results.items():
        row = []
        for key, form in (("steps_per_second", ",.0f"), ("ratio", ".3f")):
            found = values[key]
            low, middle, high = statistics.quantiles(found, n=4) if len(found) > 1 else found * 3
            row += [format(statistics.median(found), form), f"{format(low, form)} .. {format(high, form)}"]
            assert middle > 0
        table.add_row(name, *row)
    Console(width=130).print(table)
    print(f"{steps:,} steps, {pairs} turns, {options.threads} thread(s), torch {torch.__version__}")
    if options.json is not None:
        options.json.write_text(json.dumps({"steps": steps, "threads": options.threads, "results": results}, indent=2))


if __name__ == "__main__":
    main()
