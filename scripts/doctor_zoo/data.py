"""Small data sets made in code, with a training and a validation part of the same distribution."""

import math
from importlib.resources import files
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from bnlm.data import read_words


class Data(NamedTuple):
    """Training and validation examples ``(inputs, targets)``."""

    train: TensorDataset
    val: TensorDataset


def split(inputs: Tensor, targets: Tensor, val_share: float = 0.2) -> Data:
    """Cut examples, assumed to be in random order, into a training and a validation part."""
    n = int(len(inputs) * (1 - val_share))
    return Data(TensorDataset(inputs[:n], targets[:n]), TensorDataset(inputs[n:], targets[n:]))


def blobs(n: int = 2500, classes: int = 10, features: int = 20, spread: float = 2.0, scale: float = 1.0) -> Data:
    """Gaussian clouds: inputs ``(N, features)`` with standard deviation near `scale`, labels ``(N,)``."""
    centres = torch.randn(classes, features) * spread
    y = torch.randint(classes, (n,))
    x = centres[y] + torch.randn(n, features)
    return split((x - x.mean(0)) / x.std(0) * scale, y)


def teacher(n: int = 4000, classes: int = 5, features: int = 20) -> Data:
    """Gaussian inputs ``(N, features)``, labelled by a random two-layer network."""
    x = torch.randn(n, features)
    hidden = torch.tanh(x @ torch.randn(features, 16) / math.sqrt(features) * 2)
    scores = hidden @ torch.randn(16, classes)
    return split(x, (scores - scores.mean(0)).argmax(1))


def digits(n: int = 2500, classes: int = 10, noise: float = 0.7) -> Data:
    """Images ``(N, 1, 8, 8)``: one smooth random picture a class, shifted by up to a pixel, with noise."""
    pictures = F.interpolate(torch.randn(classes, 1, 4, 4), size=(8, 8), mode="bilinear") * 1.5
    y = torch.randint(classes, (n,))
    shift = torch.randint(-1, 2, (n, 2)).tolist()
    x = torch.stack([pictures[c].roll((dy, dx), (1, 2)) for c, (dy, dx) in zip(y.tolist(), shift, strict=True)])
    x = x + noise * torch.randn_like(x)
    return split((x - x.mean()) / x.std(), y)


def regression(n: int = 2500, features: int = 6, offset: float = 0.0, scale: float = 1.0) -> Data:
    """A smooth function of Gaussian inputs ``(N, features)``; targets ``(N, 1)`` with mean `offset`, std `scale`."""
    x = torch.randn(n, features)
    y = torch.sin(x @ torch.randn(features, 2)).sum(1, keepdim=True) + 0.5 * x[:, :1]
    return split(x, (y - y.mean()) / y.std() * scale + offset)


def binary(n: int = 2500, features: int = 12, positive: float = 0.5) -> Data:
    """Inputs ``(N, features)``; targets ``(N, 1)`` in {0, 1}, the share of ones `positive`."""
    x = torch.randn(n, features)
    score = x @ torch.randn(features) + torch.tanh(x @ torch.randn(features, 4)).sum(1)
    return split(x, (score > score.quantile(1 - positive)).float()[:, None])


def _spelled(words: list[str]) -> list[list[int]]:
    return [[0, *(ord(c) - 96 for c in word), 0] for word in words]


def _some_names(n: int) -> list[str]:
    words = read_words(str(files("bnlm.data") / "names.txt"))
    return [words[i] for i in torch.randperm(len(words))[:n].tolist()]


def name_windows(n: int = 1500, context: int = 3) -> Data:
    """Windows of the shipped names: characters ``(N, context)``, the next one ``(N,)``; 27 classes."""
    rows = [([0] * (context - 1) + word, len(word) - 1) for word in _spelled(_some_names(n))]
    x = [row[i : i + context] for row, steps in rows for i in range(steps)]
    y = [row[i + context] for row, steps in rows for i in range(steps)]
    order = torch.randperm(len(x))
    return split(torch.tensor(x)[order], torch.tensor(y)[order])


def name_sequences(n: int = 3000, length: int = 10) -> Data:
    """Whole names, cut or padded: characters ``(N, length)`` and the next ones, -100 where there is none."""
    x = torch.zeros(n, length, dtype=torch.long)
    y = torch.full((n, length), -100)
    for i, word in enumerate(_spelled(_some_names(n))):
        k = min(len(word) - 1, length)
        x[i, :k], y[i, :k] = torch.tensor(word[:k]), torch.tensor(word[1 : k + 1])
    return split(x, y)


def series(n: int = 2500, length: int = 30, classes: int = 4) -> Data:
    """Noisy sines ``(N, length, 1)``, to be told apart by their frequency."""
    y = torch.randint(classes, (n,))
    time = torch.arange(length) / length * 2 * math.pi
    phase = torch.rand(n, 1) * 2 * math.pi
    x = torch.sin((y[:, None] + 1) * time + phase) + 0.2 * torch.randn(n, length)
    return split(x[..., None], y)


def with_random_labels(data: Data, classes: int) -> Data:
    """The same inputs with labels that have nothing to do with them."""
    return Data(*(TensorDataset(d.tensors[0], torch.randint(classes, d.tensors[1].shape)) for d in data))


def with_input(data: Data, change: nn.Module) -> Data:
    """The same targets with `change` applied to all inputs of either part."""
    return Data(*(TensorDataset(change(d.tensors[0]), d.tensors[1]) for d in data))


def with_rare(data: Data, every: int, factor: float, where: int = 0) -> Data:
    """Multiply one training example in `every` by `factor`; `where` is 0 for inputs, 1 for targets."""
    tensors = [t.clone() for t in data.train.tensors]
    tensors[where][every // 2 :: every] *= factor
    return Data(TensorDataset(*tensors), data.val)


def only(data: Data, n: int) -> Data:
    """The first `n` training examples, and all validation examples."""
    return Data(TensorDataset(*(t[:n] for t in data.train.tensors)), data.val)
