"""Every model against a plain torch loop in the style of makemore.py, in turns, in one process.

    python scripts/bench.py models [--pairs 9] [--threads 1] [--quick] [--json FILE]

The loops are written here: a DataLoader, AdamW, the loss read and printed every ten steps. Over words, every position
of 32 padded words is computed, the paddings too, as in makemore.py; ours computes the positions that exist. Over
windows, both learn 32 a step. Ours is `Trainer.fit` as `bnlm.train` runs it, with default diagnostics, TensorBoard and
the progress bar. The numbers of parameters tell how alike the two networks are.
"""

import io
import json
import math
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
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, RandomSampler

from bnlm.assembly import build_data
from bnlm.config import CONF
from bnlm.data import WordsDataModule

WIDTH, BATCH = 64, 32
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
    "bow": Row(("model=bow", "normalization=none"), "bow", 2000),
    "rnn": Row(("model=rnn", "normalization=none"), "rnn", 1500),
    "gru": Row(("model=gru", "normalization=none"), "gru", 1000),
    "lstm": Row(("model=lstm", "normalization=none"), "lstm", 1000),
    "transformer": Row(("model=transformer", "normalization=layer"), "transformer", 500),
}


class Words(Dataset[tuple[Tensor, Tensor]]):
    """Words as rows of ids, encoded when they are asked for."""

    def __init__(self, words: list[str]) -> None:
        self.words = words
        characters = sorted(set("".join(words)))
        self.ids = {character: i + 1 for i, character in enumerate(characters)}
        self.length = max(map(len, words)) + 1  # the mark before the first character, and all characters

    def __len__(self) -> int:
        return len(self.words)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        encoded = torch.tensor([self.ids[character] for character in self.words[index]])
        x = torch.zeros(self.length, dtype=torch.long)
        y = torch.full((self.length,), -1)
        x[1 : 1 + len(encoded)] = encoded
        y[: len(encoded)] = encoded
        y[len(encoded)] = 0
        return x, y


class Windows(Dataset[tuple[Tensor, Tensor]]):
    """Windows of `context` characters before each character and each end of a word, cut beforehand."""

    def __init__(self, words: list[str], context: int) -> None:
        characters = sorted(set("".join(words)))
        self.ids = {character: i + 1 for i, character in enumerate(characters)}
        self.length = context
        contexts, targets = [], []
        for word in words:
            window = [0] * context
            for following in [*(self.ids[character] for character in word), 0]:
                contexts.append(window)
                targets.append(following)
                window = [*window[1:], following]
        self.x, self.y = torch.tensor(contexts), torch.tensor(targets)

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.x[index], self.y[index]


class WindowBigram(nn.Module):
    def __init__(self, vocab_size: int, context: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(vocab_size, vocab_size))

    def forward(self, idx: Tensor) -> Tensor:
        return self.table[idx[:, -1]]


class WindowMLP(nn.Module):
    def __init__(self, vocab_size: int, context: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(context * WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, vocab_size))

    def forward(self, idx: Tensor) -> Tensor:
        return self.mlp(self.embedding(idx).flatten(1))


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


def loop_model(row: Row, vocab_size: int, length: int) -> nn.Module:
    """Return the loop's network."""
    if row.context is not None:
        return {"bigram": WindowBigram, "mlp": WindowMLP}[row.network](vocab_size, length)
    plain = {"bigram": LoopBigram, "mlp": LoopMLP, "bow": LoopBagOfWords, "transformer": LoopTransformer}
    if row.network in plain:
        return plain[row.network](vocab_size, length)
    return LoopRecurrent(row.network, vocab_size, length)


def loop(row: Row, words: list[str], steps: int, nowhere: TextIO) -> tuple[float, int]:
    """Return the seconds of the plain loop, which prints to `nowhere`, and its network's number of parameters."""
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
    return time.perf_counter() - started, sum(p.numel() for p in model.parameters())


def ours(row: Row, steps: int) -> tuple[float, int]:
    """Return the seconds of `Trainer.fit` as `bnlm.train` runs it, without validation, and the number of parameters."""
    seconds, compiling, parameters = timed_fit(steps, [*BASE, *row.overrides])
    assert compiling == 0
    return seconds, parameters


def bench_models(turns: int, threads: int, quick: bool, json_file: Path | None) -> None:
    """Measure and print all; ``quick`` is one turn of few steps, to see that everything runs."""
    torch.set_num_threads(threads)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        data = build_data(compose("train", ["data=names"]))
    assert isinstance(data, WordsDataModule)
    words = data.words["train"]
    turns = 1 if quick else turns
    results: dict[str, dict[str, list[float]]] = {}
    table = Table("model", "parameters: loop, bnlm", "steps/s: loop, bnlm", "ratio", "quartiles")
    for name, row in ROWS.items():
        steps = 20 if quick else row.steps
        sides: dict[str, Callable[[], tuple[float, int]]] = {
            "loop": lambda row=row, steps=steps: loop(row, words, steps, io.StringIO()),
            "bnlm": lambda row=row, steps=steps: ours(row, steps),
        }
        found: dict[str, list[float]] = {side: [] for side in sides}
        parameters: dict[str, int] = {}
        for turn in range(turns):
            for side in sides if turn % 2 == 0 else reversed(sides):
                seconds, parameters[side] = sides[side]()
                found[side].append(steps / seconds)
        ratio = [a / b for a, b in zip(found["bnlm"], found["loop"], strict=True)]
        results[name] = {**found, "ratio": ratio}
        low, middle, high = statistics.quantiles(ratio, n=4, method="inclusive") if turns > 1 else ratio * 3
        medians = ", ".join(f"{statistics.median(found[side]):,.0f}" for side in sides)
        sizes = ", ".join(f"{parameters[side]:,}" for side in sides)
        table.add_row(name, sizes, medians, f"{middle:.2f}", f"{low:.2f} .. {high:.2f}")
        print(f"{name} done", file=sys.stderr)
    Console(width=120).print(table)
    print(f"{turns} turns, {threads} thread(s), torch {torch.__version__}")
    if json_file is not None:
        json_file.write_text(json.dumps({"turns": turns, "threads": threads, "results": results}, indent=2))
