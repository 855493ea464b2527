"""The networks of the zoo: multi-layer perceptrons, convolutions, recurrent cells, a transformer."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Make = Callable[[int], nn.Module]


def mlp(
    sizes: Sequence[int],
    activation: Callable[[], nn.Module] = nn.ReLU,
    norm: Make | None = None,
    dropout: float = 0.0,
    bias: bool = True,
) -> nn.Sequential:
    """Flatten, then Linear (norm, activation, dropout) for each hidden size, then the output Linear."""
    layers: list[nn.Module] = [nn.Flatten()]
    for fan_in, fan_out in pairwise(sizes[:-1]):
        layers.append(nn.Linear(fan_in, fan_out, bias=bias))
        layers += [norm(fan_out)] if norm else []
        layers.append(activation())
        layers += [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))


def name_mlp(
    hidden: Sequence[int] = (100, 100),
    activation: Callable[[], nn.Module] = nn.Tanh,
    norm: Make | None = None,
    bias: bool = True,
    context: int = 3,
) -> nn.Sequential:
    """The lecture's network: characters ``(N, context)`` to logits ``(N, 27)``."""
    body = mlp([context * 10, *hidden, 27], activation, norm, bias=bias)
    return nn.Sequential(nn.Embedding(27, 10), *body)


def linears(net: nn.Module) -> list[nn.Linear]:
    """All Linear layers in the order they were made; the last is the output layer."""
    return [m for m in net.modules() if isinstance(m, nn.Linear)]


def with_gain(net: nn.Module, gain: float, head: float = 0.1) -> nn.Module:
    """Draw hidden weights from N(0, gain^2 / fan_in), zero all biases, scale the output layer by `head`."""
    *hidden, last = linears(net)
    for layer, g in [*((layer, gain) for layer in hidden), (last, head)]:
        nn.init.normal_(layer.weight, std=g / math.sqrt(layer.in_features))
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return net


def with_head(net: nn.Module, factor: float) -> nn.Module:
    """Multiply the weights and the bias of the output layer by `factor`."""
    with torch.no_grad():
        for parameter in linears(net)[-1].parameters():
            parameter *= factor
    return net


def convnet(
    norm: Make | None = nn.BatchNorm2d,
    activation: Callable[[], nn.Module] = nn.ReLU,
    channels: Sequence[int] = (12, 24, 24),
    bias: bool = False,
    classes: int = 10,
) -> nn.Sequential:
    """Images ``(N, 1, 8, 8)`` to logits ``(N, classes)`` by 3 x 3 convolutions and the mean over positions."""
    layers: list[nn.Module] = []
    for i, (fan_in, fan_out) in enumerate(zip([1, *channels[:-1]], channels, strict=True)):
        layers.append(nn.Conv2d(fan_in, fan_out, 3, stride=2 if i == 1 else 1, padding=1, bias=bias or norm is None))
        layers += [norm(fan_out)] if norm else []
        layers.append(activation())
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1], classes))


class ResidualConv(nn.Module):
    """``x + BN(conv(relu(BN(conv(x)))))``; the last BatchNorm may start at zero (Goyal et al. 2017, 1706.02677)."""

    def __init__(self, channels: int, zero_init: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        if zero_init:
            nn.init.zeros_(self.bn2.weight)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` to the same shape."""
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(x + self.bn2(self.conv2(out)))


def resnet(blocks: int = 2, channels: int = 12, zero_init: bool = True) -> nn.Sequential:
    """A residual network for images ``(N, 1, 8, 8)``, ten classes."""
    stem = [nn.Conv2d(1, channels, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
    body = [ResidualConv(channels, zero_init) for _ in range(blocks)]
    return nn.Sequential(*stem, *body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


class ResidualMLP(nn.Module):
    """Pre-norm residual perceptron; `zero_init` starts each branch's second matrix at zero (Fixup, 1901.09321)."""

    def __init__(self, features: int, width: int, blocks: int, out: int, zero_init: bool) -> None:
        super().__init__()
        self.stem = nn.Linear(features, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
            for _ in range(blocks)
        )
        self.head = nn.Linear(width, out)
        if zero_init:
            for block in self.blocks:
                nn.init.zeros_(block[3].weight)
                nn.init.zeros_(block[3].bias)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, features)`` to ``(N, out)``."""
        x = self.stem(x.flatten(1))
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


class TanhCell(nn.Module):
    """A recurrent layer in plain tensor operations: ``h = tanh(W [x, h])``."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.weight_x = nn.Parameter(torch.randn(hidden, features) / math.sqrt(features))
        self.weight_h = nn.Parameter(torch.randn(hidden, hidden) / math.sqrt(hidden))
        self.bias = nn.Parameter(torch.zeros(hidden))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``(N, T, features)`` to all hidden states ``(N, T, hidden)`` and the last ``(N, hidden)``."""
        h = x.new_zeros(len(x), len(self.bias))
        states = []
        for t in range(x.shape[1]):
            h = torch.tanh(x[:, t] @ self.weight_x.T + h @ self.weight_h.T + self.bias)
            states.append(h)
        return torch.stack(states, 1), h


class CharRNN(nn.Module):
    """Characters ``(N, T)`` to logits of the next ``(N, T, 27)`` by any recurrent layer ``(N, T, 24) -> (N, T, H)``."""

    def __init__(self, cell: nn.Module, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(27, 24)
        self.cell = cell
        self.head = nn.Linear(hidden, 27)

    def forward(self, x: Tensor) -> Tensor:
        """Logits for each position."""
        return self.head(self.cell(self.embedding(x))[0])


class SeriesRNN(nn.Module):
    """Series ``(N, T, 1)`` to logits ``(N, classes)`` from the last state of a recurrent layer."""

    def __init__(self, cell: nn.Module, hidden: int, classes: int = 4) -> None:
        super().__init__()
        self.cell = cell
        self.head = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits for each series."""
        return self.head(self.cell(x)[0][:, -1])


class Attention(nn.Module):
    """Causal self-attention with four heads."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, T, C)`` to the same shape."""
        q, k, v = (p.unflatten(-1, (4, -1)).transpose(1, 2) for p in self.qkv(x).chunk(3, -1))
        return self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))


class TransformerBlock(nn.Module):
    """Attention and a perceptron, each with LayerNorm before it and a residual path around it."""

    def __init__(self, width: int, activation: Callable[[], nn.Module], norm: bool, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width) if norm else nn.Identity()
        self.attention = Attention(width)
        self.norm2 = nn.LayerNorm(width) if norm else nn.Identity()
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), activation(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, T, C)`` to the same shape."""
        x = x + self.dropout(self.attention(self.norm1(x)))
        return x + self.dropout(self.mlp(self.norm2(x)))


class Transformer(nn.Module):
    """Characters ``(N, T)`` to logits of the next ``(N, T, 27)``."""

    def __init__(
        self,
        width: int = 32,
        blocks: int = 2,
        activation: Callable[[], nn.Module] = nn.GELU,
        norm: bool = True,
        dropout: float = 0.0,
        tied: bool = False,
        std: float | None = 0.02,
    ) -> None:
        super().__init__()
        self.token = nn.Embedding(27, width)
        self.position = nn.Embedding(10, width)
        self.blocks = nn.Sequential(*(TransformerBlock(width, activation, norm, dropout) for _ in range(blocks)))
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()
        self.head = nn.Linear(width, 27, bias=False)
        if std is not None:  # GPT-2's init; None leaves torch's
            for module in self.modules():
                if isinstance(module, nn.Linear | nn.Embedding):
                    nn.init.normal_(module.weight, std=std)
        if tied:
            self.head.weight = self.token.weight

    def forward(self, x: Tensor) -> Tensor:
        """Logits for each position."""
        x = self.token(x) + self.position(torch.arange(x.shape[1], device=x.device))
        return self.head(self.norm(self.blocks(x)))


class LoRALinear(nn.Module):
    """A frozen Linear plus a trained low-rank path that starts at zero (Hu et al. 2021, 2106.09685)."""

    def __init__(self, base: nn.Linear, rank: int = 4) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.lora_a = nn.Parameter(torch.randn(rank, base.in_features) / math.sqrt(base.in_features))
        self.lora_b = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        """``(..., in_features)`` to ``(..., out_features)``."""
        return self.base(x) + x @ self.lora_a.T @ self.lora_b.T
