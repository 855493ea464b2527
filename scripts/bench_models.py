"""Every model against a plain torch loop in the style of makemore.py, in turns, in one process.

    python scripts/bench.py models [--pairs 3] [--threads 1] [--quick] [--json FILE]

The loops are written here: a DataLoader over padded words, every position of a word
computed (the paddings too), AdamW, the loss read and printed every ten steps. Ours is `Trainer.fit` as `bnlm.train`
runs it, with default diagnostics, TensorBoard and the progress bar. Of `bigram` and `mlp` ours learns 32 windows a
step, as the lecture does, and the loop all positions of 32 words; the loop's `mlp` also sees the whole word, ours 3
characters, so that row compares different work.
"""

import contextlib
import io
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from omegaconf import open_dict
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, RandomSampler

from bnlm.assembly import build_data, build_language_model, build_trainer, fit_batches_to_cadences
from bnlm.config import CONF, check
from bnlm.data import WordsDataModule
from bnlm.interruption import StopOnSignal

WIDTH, BATCH = 64, 32
#: Model options of ours, by row of the table. The hidden sizes are those of the loops.
MODELS = {
    "bigram": ["model=bigram", "normalization=none"],
    "mlp": ["model=mlp", "model.n_embd=64", "model.hidden_sizes=[64]", "normalization=none"],
    "bow": ["model=bow", "normalization=none"],
    "rnn": ["model=rnn", "normalization=none"],
    "gru": ["model=gru", "normalization=none"],
    "lstm": ["model=lstm", "normalization=none"],
    "transformer": ["model=transformer", "normalization=layer"],
}
STEPS = {"bigram": 3000, "mlp": 3000, "bow": 2000, "rnn": 500, "gru": 400, "lstm": 400, "transformer": 300}


class Words(Dataset[tuple[Tensor, Tensor]]):
    """Words as rows of ids, encoded when they are asked for."""

    def __init__(self, words: list[str]) -> None:
        self.words = words
        characters = sorted(set("".join(words)))
        self.ids = {character: i + 1 for i, character in enumerate(characters)}
        self.longest = max(map(len, words))

    def __len__(self) -> int:
        return len(self.words)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        encoded = torch.tensor([self.ids[character] for character in self.words[index]])
        x = torch.zeros(self.longest + 1, dtype=torch.long)
        y = torch.full((self.longest + 1,), -1)
        x[1 : 1 + len(encoded)] = encoded
        y[: len(encoded)] = encoded
        y[len(encoded)] = 0
        return x, y


class LoopBigram(nn.Module):
    def __init__(self, vocab_size: int, length: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(vocab_size, vocab_size))

    def forward(self, idx: Tensor) -> Tensor:
        return self.table[idx]


class LoopMLP(nn.Module):
    """The embeddings of the characters before each position, joined, through one hidden layer."""

    def __init__(self, vocab_size: int, length: int) -> None:
        super().__init__()
        self.length = length
        self.embedding = nn.Embedding(vocab_size + 1, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(length * WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, vocab_size))
        self.before = vocab_size

    def forward(self, idx: Tensor) -> Tensor:
        parts = []
        for _ in range(self.length):
            parts.append(self.embedding(idx))
            idx = torch.roll(idx, 1, 1)
            idx[:, 0] = self.before
        return self.mlp(torch.cat(parts, -1))


class LoopBagOfWords(nn.Module):
    def __init__(self, vocab_size: int, length: int) -> None:
        super().__init__()
        self.embedding, self.places = nn.Embedding(vocab_size, WIDTH), nn.Embedding(length, WIDTH)
        self.hidden, self.back = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, vocab_size)
        self.register_buffer("mask", torch.tril(torch.ones(length, length)))

    def forward(self, idx: Tensor) -> Tensor:
        n, t = idx.shape
        x = self.embedding(idx) + self.places(torch.arange(t))
        weights = torch.zeros(n, t, t).masked_fill(self.mask[:t, :t] == 0, -torch.inf).softmax(-1)
        x = x + weights @ x
        return self.head(x + self.back(torch.tanh(self.hidden(x))))


class LoopRecurrent(nn.Module):
    """A cell, position by position."""

    def __init__(self, kind: str, vocab_size: int, length: int) -> None:
        super().__init__()
        self.kind = kind
        self.embedding = nn.Embedding(vocab_size, WIDTH)
        self.start = nn.Parameter(torch.zeros(1, WIDTH))
        gates = {"rnn": 1, "gru": 2, "lstm": 4}[kind]
        self.gates = nn.Linear(2 * WIDTH, gates * WIDTH)
        if kind == "gru":
            self.candidate = nn.Linear(2 * WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, vocab_size)

    def forward(self, idx: Tensor) -> Tensor:
        x = self.embedding(idx)
        state = memory = self.start.expand(len(idx), -1)
        states = []
        for time_step in range(idx.shape[1]):
            joined = torch.cat([x[:, time_step], state], 1)
            if self.kind == "rnn":
                state = torch.tanh(self.gates(joined))
            elif self.kind == "gru":
                reset, update = torch.sigmoid(self.gates(joined)).chunk(2, 1)
                fresh = torch.tanh(self.candidate(torch.cat([x[:, time_step], reset * state], 1)))
                state = (1 - update) * state + update * fresh
            else:
                enter, forget, leave, fresh = self.gates(joined).chunk(4, 1)
                memory = torch.sigmoid(forget) * memory + torch.sigmoid(enter) * torch.tanh(fresh)
                state = torch.sigmoid(leave) * torch.tanh(memory)
            states.append(state)
        return self.head(torch.stack(states, 1))


class LoopBlock(nn.Module):
    """Attention written out, and a perceptron with the tanh form of GELU."""

    def __init__(self, length: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.back = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.hidden, self.out = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.register_buffer("mask", torch.tril(torch.ones(length, length)).view(1, 1, length, length))

    def forward(self, x: Tensor) -> Tensor:
        n, t, c = x.shape
        q, k, v = (
            part.view(n, t, self.heads, c // self.heads).transpose(1, 2)
            for part in self.qkv(self.norm_1(x)).split(c, 2)
        )
        attention = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
        attention = attention.masked_fill(self.mask[:, :, :t, :t] == 0, -torch.inf).softmax(-1)
        x = x + self.back((attention @ v).transpose(1, 2).contiguous().view(n, t, c))
        h = self.hidden(self.norm_2(x))
        h = 0.5 * h * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (h + 0.044715 * torch.pow(h, 3.0))))
        return x + self.out(h)


class LoopTransformer(nn.Module):
    def __init__(self, vocab_size: int, length: int) -> None:
        super().__init__()
        self.embedding, self.places = nn.Embedding(vocab_size, WIDTH), nn.Embedding(length, WIDTH)
        self.blocks = nn.ModuleList(LoopBlock(length) for _ in range(4))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, vocab_size, bias=False)

    def forward(self, idx: Tensor) -> Tensor:
        x = self.embedding(idx) + self.places(torch.arange(idx.shape[1]).unsqueeze(0))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def loop_model(name: str, vocab_size: int, length: int) -> nn.Module:
    """Return the loop's model."""
    plain = {"bigram": LoopBigram, "mlp": LoopMLP, "bow": LoopBagOfWords, "transformer": LoopTransformer}
    return plain[name](vocab_size, length) if name in plain else LoopRecurrent(name, vocab_size, length)


def loop(name: str, words: list[str], steps: int, nowhere: TextIO) -> float:
    """Seconds of the plain loop, which prints to `nowhere`."""
    data = Words(words)
    torch.manual_seed(0)
    model = loop_model(name, len(data.ids) + 1, data.longest + 1)
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
    return time.perf_counter() - started


def ours(name: str, steps: int) -> float:
    """Seconds of `Trainer.fit` as `bnlm.train experiment=makemore_transformer model=NAME` runs it, no validation."""
    with tempfile.TemporaryDirectory() as folder:
        given = [f"trainer.max_steps={steps}", "trainer.limit_val_batches=0", f"logger.save_dir={folder}"]
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("train", ["experiment=makemore_transformer", "data=names", *MODELS[name], *given])
        with open_dict(cfg):
            check(cfg)
        fit_batches_to_cadences(cfg)
        data = build_data(cfg)
        for split in ("train", "val"):
            data.examples(split)
        model = build_language_model(cfg, data)
        trainer = build_trainer(cfg, Path(folder) / "checkpoints", StopOnSignal())
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            started = time.perf_counter()
            trainer.fit(model, data)
            return time.perf_counter() - started


def bench_models(turns: int, threads: int, quick: bool, json_file: Path | None) -> None:
    """Measure and print all; ``quick`` is one turn of few steps, to see that everything runs."""
    torch.set_num_threads(threads)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        data = build_data(compose("train", ["data=names"]))
    assert isinstance(data, WordsDataModule)
    words = list(data.words["train"])
    turns = 1 if quick else turns
    results: dict[str, dict[str, list[float]]] = {}
    table = Table("model", "loop, steps/s", "bnlm, steps/s", "ratio", "quartiles")
    for name in MODELS:
        steps = 20 if quick else STEPS[name]
        sides: dict[str, Callable[[], float]] = {
            "loop": lambda name=name, steps=steps: loop(name, words, steps, io.StringIO()),
            "bnlm": lambda name=name, steps=steps: ours(name, steps),
        }
        found: dict[str, list[float]] = {side: [] for side in sides}
        for turn in range(turns):
            for side in sides if turn % 2 == 0 else reversed(sides):
                found[side].append(steps / sides[side]())
        ratio = [a / b for a, b in zip(found["bnlm"], found["loop"], strict=True)]
        results[name] = {**found, "ratio": ratio}
        low, middle, high = statistics.quantiles(ratio, n=4) if turns > 1 else ratio * 3
        medians = [f"{statistics.median(found[side]):,.0f}" for side in sides]
        table.add_row(name, *medians, f"{middle:.2f}", f"{low:.2f} .. {high:.2f}")
        print(f"{name} done", file=sys.stderr)
    Console(width=100).print(table)
    print(f"{turns} turns, {threads} thread(s), torch {torch.__version__}")
    if json_file is not None:
        json_file.write_text(json.dumps({"turns": turns, "threads": threads, "results": results}, indent=2))
