"""The networks of the plain loops that every model is measured against, in the style of makemore.py, and their data."""

import math

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

WIDTH = 64


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
