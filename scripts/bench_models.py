"""Every model against a plain torch loop in the style of makemore.py, in turns, in one process.

    python scripts/bench.py models [--pairs 9] [--threads 1] [--quick] [--json FILE]

The loops are written here, their networks in `loop_networks.py`: a DataLoader, AdamW, the loss read and printed every
ten steps. Over words, every position of 32 padded words is computed, the paddings too, as in makemore.py; ours computes
the positions that exist. Over windows, both learn 32 a step. Ours is `Trainer.fit` as `bnlm.train` runs it, with
default diagnostics, TensorBoard and the progress bar, eagerly and with `compile=true` (the time to compile is left out,
and printed). The numbers of parameters tell how alike the two networks are.
"""

import io
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import torch
import torch.nn.functional as F
from bench_fit import timed_fit
from hydra import compose, initialize_config_dir
from loop_networks import (
    LoopBagOfWords,
    LoopBigram,
    LoopMLP,
    LoopRecurrent,
    LoopTransformer,
    WindowBigram,
    WindowMLP,
    Windows,
    Words,
)
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils.data import DataLoader, RandomSampler

from bnlm.assembly import build_data
from bnlm.config import CONF
from bnlm.data import WordsDataModule

BATCH = 32
BASE = ["experiment=makemore_transformer", "data=names"]


@dataclass(frozen=True)
class Row:
    """What is compared: options of ours, and the loop's network on words or on windows of so many characters."""

    overrides: tuple[str, ...]
    network: str
    steps: int
    context: int | None = None  # None: whole words in the loop


MLP = ("model=mlp", "model.n_embd=64", "model.hidden_sizes=[64]", "normalization=none")
ROWS = {
    "bigram": Row(("model=bigram", "normalization=none"), "bigram", 3000, 3),
    "bigram | 32 words in the loop": Row(("model=bigram", "normalization=none"), "bigram", 3000),
    "mlp, 3 characters": Row(MLP, "mlp", 3000, 3),
    "mlp, 16 characters": Row((*MLP, "data.context=16"), "mlp", 3000, 16),
    "mlp, 16 characters | 32 words in the loop": Row((*MLP, "data.context=16"), "mlp", 1000),
    "bow": Row(("model=bow", "normalization=none"), "bow", 3000),
    "rnn": Row(("model=rnn", "normalization=none"), "rnn", 3000),
    "gru": Row(("model=gru", "normalization=none"), "gru", 2000),
    "lstm": Row(("model=lstm", "normalization=none"), "lstm", 2000),
    "transformer": Row(("model=transformer", "normalization=layer"), "transformer", 1000),
}


def loop_model(row: Row, vocab_size: int, length: int) -> nn.Module:
    """Return the loop's network."""
    if row.context is not None:
        return {"bigram": WindowBigram, "mlp": WindowMLP}[row.network](vocab_size, length)
    plain = {"bigram": LoopBigram, "mlp": LoopMLP, "bow": LoopBagOfWords, "transformer": LoopTransformer}
    if row.network in plain:
        return plain[row.network](vocab_size, length)
    return LoopRecurrent(row.network, vocab_size, length)


def loop(row: Row, words: list[str], steps: int, nowhere: TextIO) -> tuple[float, float, int]:
    """Return the seconds of the plain loop, which prints to `nowhere`, 0, and its network's number of parameters."""
    data = Words(words) if row.context is None else Windows(words, row.context)
    torch.manual_seed(0)
    model = loop_model(row, len(data.ids) + 1, data.length)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4, weight_decay=0.01, betas=(0.9, 0.99), eps=1e-8)
    batches = iter(DataLoader(data, BATCH, sampler=RandomSampler(data, replacement=True, num_samples=int(1e10))))
    started = time.perf_counter()
    for step in range(steps):
        x, y = next(batches)
        logits = model(x)
        loss = F.cross_entropy(logits.view(-1, logits.size(-1)), y.view(-1), ignore_index=-1)
        model.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if step % 10 == 0:
            print(f"step {step} loss {loss.item():.4f}", file=nowhere)
    return time.perf_counter() - started, 0.0, sum(p.numel() for p in model.parameters())


def ours(row: Row, steps: int, compile_: bool) -> tuple[float, float, int]:
    """Return the seconds of `Trainer.fit` as `bnlm.train` runs it, without validation, and those it took to compile.

    The former without the latter; and the number of parameters.
    """
    seconds, compiling, parameters = timed_fit(steps, [*BASE, *row.overrides, f"compile={str(compile_).lower()}"])
    assert (compiling > 0) == compile_
    return seconds - compiling, compiling, parameters


def bench_models(turns: int, threads: int, quick: bool, json_file: Path | None) -> None:
    """Measure and print all; ``quick`` is one turn of few steps, none compiled, to see that everything runs."""
    torch.set_num_threads(threads)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        data = build_data(compose("train", ["data=names"]))
    assert isinstance(data, WordsDataModule)
    words = data.words["train"]
    turns = 1 if quick else turns
    results: dict[str, dict[str, list[float]]] = {}
    table = Table(
        "model", "parameters: loop, bnlm", "variant", "steps/s", "to compile", "ratio to the loop", "quartiles"
    )
    for name, row in ROWS.items():
        steps = 20 if quick else row.steps
        sides: dict[str, Callable[[], tuple[float, float, int]]] = {
            "loop": lambda row=row, steps=steps: loop(row, words, steps, io.StringIO()),
            "bnlm": lambda row=row, steps=steps: ours(row, steps, False),
        }
        if not quick:
            sides["compiled"] = lambda row=row, steps=steps: ours(row, steps, True)
        found: dict[str, list[float]] = {side: [] for side in sides}
        to_compile: dict[str, list[float]] = {side: [] for side in sides}
        parameters: dict[str, int] = {}
        for turn in range(turns):
            for side in sides if turn % 2 == 0 else reversed(sides):
                seconds, compiling, parameters[side] = sides[side]()
                found[side].append(steps / seconds)
                to_compile[side].append(compiling)
        results[name] = dict(found)
        for side in sides:
            ratio = [a / b for a, b in zip(found[side], found["loop"], strict=True)]
            low, middle, high = statistics.quantiles(ratio, n=4, method="inclusive") if turns > 1 else ratio * 3
            results[name][f"{side}, ratio"] = ratio
            table.add_row(
                *((name, f"{parameters['loop']:,}, {parameters['bnlm']:,}") if side == "loop" else ("", "")),
                side,
                f"{statistics.median(found[side]):,.0f}",
                f"{max(to_compile[side]):.0f} s" if side == "compiled" else "",
                *(("1", "") if side == "loop" else (f"{middle:.2f}", f"{low:.2f} .. {high:.2f}")),
            )
        print(f"{name} done", file=sys.stderr)
    Console(width=130).print(table)
    print(f"{turns} turns, {threads} thread(s), torch {torch.__version__}")
    if json_file is not None:
        json_file.write_text(json.dumps({"turns": turns, "threads": threads, "results": results}, indent=2))
