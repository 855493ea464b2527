"""Data made in code: spirals, parity, waves, drawn shapes, sequences, text, mixtures."""

import math
import pydoc_data.topics

import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset


def loader(*tensors: Tensor, batch: int = 32, shuffle: bool = True) -> DataLoader[tuple[Tensor, ...]]:
    """Return batches of the tensors' rows, without a remainder where they are shuffled."""
    return DataLoader(TensorDataset(*tensors), batch_size=batch, shuffle=shuffle, drop_last=shuffle)


def spirals(n: int = 3000, noise: float = 0.05) -> tuple[Tensor, Tensor]:
    """Three arms in the plane ``(N, 2)``, arm ``(N,)``."""
    y = torch.randint(3, (n,))
    r = torch.rand(n)
    angle = 4 * r + y * 2 * math.pi / 3
    x = torch.stack([r * angle.cos(), r * angle.sin()], 1) * 1.7 + noise * torch.randn(n, 2)
    return x, y


def parity(n: int = 4000, bits: int = 5) -> tuple[Tensor, Tensor]:
    """Signs ``(N, bits)``, whether their product is positive ``(N, 1)``."""
    x = torch.randint(2, (n, bits)).float() * 2 - 1
    return x, (x.prod(1) > 0).float()[:, None]


def waves(n: int = 4000) -> tuple[Tensor, Tensor]:
    """Points ``(N, 1)``, a noisy sine of them."""
    x = torch.rand(n, 1) * 4 - 2
    return x, (3 * x).sin() + 0.05 * torch.randn(n, 1)


def house_prices(n: int = 4000) -> tuple[Tensor, Tensor]:
    """Features ``(N, 10)``, targets near 200 that nobody has scaled."""
    x = torch.randn(n, 10)
    return x, 200 + 50 * (x @ torch.randn(10, 1) / 3) + 5 * torch.randn(n, 1)


def tabular(n: int = 4000, classes: int = 6, features: int = 16, spread: float = 1.0) -> tuple[Tensor, Tensor]:
    """Clouds ``(N, features)``, label ``(N,)``."""
    centres = torch.randn(classes, features)
    y = torch.randint(classes, (n,))
    return centres[y] + spread * torch.randn(n, features), y


def noisy_table() -> tuple[Tensor, Tensor]:
    """Clouds that overlap, so that the loss stays high; features of standard deviation near 1."""
    x, y = tabular(n=8000, spread=6.0)
    return x / 6, y


def imbalanced(n: int = 4000, share: float = 0.05) -> tuple[Tensor, Tensor]:
    """Features ``(N, 12)``, a rare class 1."""
    y = (torch.rand(n) < share).long()
    return torch.randn(n, 12) + 1.2 * y[:, None], y


def multi_label(n: int = 4000, labels: int = 8) -> tuple[Tensor, Tensor]:
    """Features ``(N, 20)``, labels ``(N, labels)`` of 0 and 1."""
    x = torch.randn(n, 20)
    return x, (x @ torch.randn(20, labels) + 0.5 * torch.randn(n, labels) > 0).float()


def shapes(n: int = 2000, size: int = 12, noise: float = 0.3) -> tuple[Tensor, Tensor, Tensor]:
    """Images ``(n, 1, size, size)`` of squares, frames, crosses and discs, their class, and the class of each pixel."""
    y = torch.randint(4, (n,))
    cx, cy = (torch.randint(4, size - 4, (n, 1, 1)) for _ in range(2))
    r = torch.randint(2, 4, (n, 1, 1))
    grid = torch.arange(size)
    dx, dy = (grid[None, None, :] - cx).abs(), (grid[None, :, None] - cy).abs()
    box = (dx <= r) & (dy <= r)
    kinds = torch.stack(
        [
            box,
            box & ((dx == r) | (dy == r)),
            ((dx == 0) & (dy <= r)) | ((dy == 0) & (dx <= r)),
            dx**2 + dy**2 <= r**2 - 1,
        ],
        1,
    )
    mask = kinds[torch.arange(n), y]
    image = mask.float() + noise * torch.randn(n, size, size)
    return image[:, None], y, mask.long() * (1 + y[:, None, None] // 2)


def reverse(n: int = 4000, length: int = 6, vocab: int = 8) -> tuple[Tensor, Tensor]:
    """Tokens ``(N, length)``, the same backwards."""
    x = torch.randint(vocab, (n, length))
    return x, x.flip(1)


TEXT = "".join(pydoc_data.topics.topics.values()).lower()
ALPHABET = " abcdefghijklmnopqrstuvwxyz.,()"


def text(n: int = 3000, length: int = 24) -> tuple[Tensor, Tensor]:
    """Characters ``(N, length)`` of Python's own manual, the next ones."""
    ids = torch.tensor([ALPHABET.index(c) for c in TEXT[:200_000] if c in ALPHABET])
    at = torch.randint(len(ids) - length - 1, (n, 1)) + torch.arange(length + 1)
    return ids[at[:, :-1]], ids[at[:, 1:]]


def bags(n: int = 3000, vocab: int = 200, classes: int = 5) -> tuple[Tensor, Tensor]:
    """Words ``(N, 20)`` of a topic, the topic."""
    y = torch.randint(classes, (n,))
    topic = torch.softmax(1.5 * torch.randn(classes, vocab), 1)
    return torch.multinomial(topic[y], 20, replacement=True), y


def time_series(n: int = 3000, length: int = 24) -> tuple[Tensor, Tensor]:
    """Noisy sines ``(N, length, 1)``, their next values."""
    phase, speed = 6.28 * torch.rand(n, 1), 0.2 + 0.4 * torch.rand(n, 1)
    x = (phase + speed * torch.arange(length + 1)).sin() + 0.05 * torch.randn(n, length + 1)
    return x[:, :-1, None], x[:, 1:, None]


def pulses(n: int = 3000, length: int = 32) -> tuple[Tensor, Tensor]:
    """1-D signals ``(n, 1, length)`` with one of three pulses in noise."""
    y = torch.randint(3, (n,))
    t = torch.arange(length) - torch.randint(8, length - 8, (n, 1))
    forms = torch.stack(
        [torch.exp(-(t**2) / 4.0), torch.exp(-(t**2) / 4.0) * t, torch.cos(1.5 * t) * torch.exp(-(t**2) / 16.0)], 1
    )
    return (forms[torch.arange(n), y] + 0.2 * torch.randn(n, length))[:, None], y


def low_rank(n: int = 3000, features: int = 24) -> tuple[Tensor, Tensor]:
    """Points ``(N, features)`` near a surface of 4 dimensions, twice."""
    x = torch.tanh(torch.randn(n, 4) @ torch.randn(4, features))
    return x, x


LETTERS = len(ALPHABET)


def characters(n: int = 3000) -> tuple[Tensor, Tensor]:
    """Six characters ``(N, 6)``, the next one."""
    x, y = text(n, 6)
    return x, y[:, -1]


def images(n: int = 2000) -> tuple[Tensor, Tensor]:
    """Images and classes of `shapes`."""
    x, y, _ = shapes(n)
    return x, y


def masks(n: int = 800) -> tuple[Tensor, Tensor]:
    """Images of `shapes` and the class of each pixel."""
    x, _, mask = shapes(n)
    return x, mask
