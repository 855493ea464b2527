"""Networks as different people write them."""

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def stack(
    sizes: list[int], act: Callable[[], nn.Module] = nn.ReLU, norm: Callable | None = None, drop: float = 0.0
) -> nn.Sequential:
    """A perceptron of these sizes."""
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(pairwise(sizes)):
        last = i == len(sizes) - 2
        layers.append(nn.Linear(a, b, bias=last or norm is None))
        if not last:
            if norm is not None:
                layers.append(norm(b))
            layers.append(act())
            if drop:
                layers.append(nn.Dropout(drop))
    return nn.Sequential(*layers)


class ResMLP(nn.Module):
    """Residual blocks that begin with a norm."""

    def __init__(
        self, d_in: int, width: int, d_out: int, blocks: int = 4, norm: Callable = nn.LayerNorm, act: Callable = nn.SiLU
    ) -> None:
        super().__init__()
        self.stem = nn.Linear(d_in, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(norm(width), nn.Linear(width, 2 * width), act(), nn.Linear(2 * width, width))
            for _ in range(blocks)
        )
        self.norm = norm(width)
        self.head = nn.Linear(width, d_out)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(self.norm(x))


class SmallResNet(nn.Module):
    """Two residual blocks of 3 x 3 convolutions, as He et al. 2015."""

    class Block(nn.Module):
        def __init__(self, c: int, norm: Callable, zero: bool) -> None:
            super().__init__()
            self.c1, self.n1 = nn.Conv2d(c, c, 3, padding=1, bias=False), norm(c)
            self.c2, self.n2 = nn.Conv2d(c, c, 3, padding=1, bias=False), norm(c)
            if zero:
                nn.init.zeros_(self.n2.weight)

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(x + self.n2(self.c2(F.relu(self.n1(self.c1(x))))))

    def __init__(self, norm: Callable = nn.BatchNorm2d, zero: bool = False, out: int = 4) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1, bias=False), norm(16), nn.ReLU())
        self.body = nn.Sequential(*(self.Block(16, norm, zero) for _ in range(2)))
        self.head = nn.Linear(16, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.stem(x)).mean((2, 3)))


def depthwise(act: Callable = nn.Hardswish) -> nn.Module:
    """Depthwise and pointwise convolutions."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), act(),
        nn.Conv2d(16, 16, 3, stride=2, padding=1, groups=16, bias=False), nn.BatchNorm2d(16), act(),
        nn.Conv2d(16, 32, 1, bias=False), nn.BatchNorm2d(32), act(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4),
    )  # fmt: skip


def conv_plain(act: Callable = nn.ReLU, norm: Callable | None = None, drop: float = 0.0) -> nn.Module:
    """Three convolutions and a hidden layer."""

    def cell(a: int, b: int) -> list[nn.Module]:
        return [nn.Conv2d(a, b, 3, padding=1, bias=norm is None)] + ([norm(b)] if norm else []) + [act()]

    return nn.Sequential(
        *cell(1, 8), *cell(8, 16), nn.MaxPool2d(2), *cell(16, 16), nn.MaxPool2d(2), nn.Flatten(),
        nn.Dropout(drop), nn.Linear(16 * 9, 32), act(), nn.Linear(32, 4),
    )  # fmt: skip


class UNet(nn.Module):
    """Class of each pixel, ``(N, 1, H, W)`` to ``(N, classes, H, W)``."""

    def __init__(self, classes: int = 3, norm: Callable = nn.BatchNorm2d) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1, bias=False), norm(8), nn.ReLU())
        self.low = nn.Sequential(
            nn.Conv2d(8, 16, 3, padding=1, stride=2, bias=False),
            norm(16),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1, bias=False),
            norm(16),
            nn.ReLU(),
        )
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.out = nn.Conv2d(16, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.down(x)
        return self.out(torch.cat([a, self.up(self.low(a))], 1))


def conv1d(act: Callable = nn.ELU) -> nn.Module:
    """Three convolutions over time."""
    return nn.Sequential(
        nn.Conv1d(1, 16, 5, padding=2), act(), nn.Conv1d(16, 16, 5, padding=2, stride=2), act(),
        nn.Conv1d(16, 32, 3, padding=1, stride=2), act(), nn.AdaptiveMaxPool1d(1), nn.Flatten(), nn.Linear(32, 3),
    )  # fmt: skip


class Encoder(nn.Module):
    """torch's transformer over tokens, ``(N, T)`` to ``(N, T, vocab)``."""

    def __init__(
        self,
        vocab: int,
        d: int = 32,
        layers: int = 2,
        length: int = 32,
        causal: bool = False,
        norm_first: bool = True,
        act: str = "gelu",
        drop: float = 0.0,
        tied: bool = False,
    ) -> None:
        super().__init__()
        self.tok, self.pos = nn.Embedding(vocab, d), nn.Embedding(length, d)
        if tied:
            nn.init.normal_(self.tok.weight, std=0.1)
        layer = nn.TransformerEncoderLayer(d, 4, 2 * d, drop, act, norm_first=norm_first, batch_first=True)
        self.body = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(d)
        self.head = nn.Linear(d, vocab, bias=not tied)
        if tied:
            self.head.weight = self.tok.weight
        self.causal = causal

    def forward(self, x: Tensor) -> Tensor:
        T = x.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(T) if self.causal else None
        h = self.body(self.tok(x) + self.pos(torch.arange(T)), mask=mask, is_causal=self.causal)
        return self.head(self.norm(h))


class Recurrent(nn.Module):
    """Tokens or values in, something out at each step."""

    def __init__(
        self,
        kind: type[nn.RNNBase],
        vocab: int | None,
        out: int,
        hidden: int = 48,
        emb: int = 16,
        layers: int = 1,
        last: bool = False,
        **more: object,
    ) -> None:
        super().__init__()
        self.emb = nn.Embedding(vocab, emb) if vocab else nn.Identity()
        self.rnn = kind(emb if vocab else 1, hidden, layers, batch_first=True, **more)
        self.head = nn.Linear(hidden, out)
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        h = self.rnn(self.emb(x))[0]
        return self.head(h[:, -1] if self.last else h)


class Mixer(nn.Module):
    """Patches of 3 x 3 mixed over place and channel."""

    def __init__(self, d: int = 32, blocks: int = 2) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, d, 3, stride=3)
        self.token = nn.ModuleList(
            nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16)) for _ in range(blocks)
        )
        self.channel = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(d), nn.Linear(d, 64), nn.GELU(), nn.Linear(64, d)) for _ in range(blocks)
        )
        self.norm = nn.ModuleList(nn.LayerNorm(d) for _ in range(blocks))
        self.head = nn.Linear(d, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        for norm, token, channel in zip(self.norm, self.token, self.channel, strict=True):
            x = x + token(norm(x).transpose(1, 2)).transpose(1, 2)
            x = x + channel(x)
        return self.head(x.mean(1))


class VAE(nn.Module):
    """Encoder, noise, decoder (Kingma & Welling 2013)."""

    def __init__(self, d: int = 24, z: int = 4) -> None:
        super().__init__()
        self.enc, self.dec = stack([d, 64, 2 * z], nn.SiLU), stack([z, 64, d], nn.SiLU)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_var = self.enc(x).chunk(2, 1)
        return self.dec(mean + torch.randn_like(mean) * (0.5 * log_var).exp()), mean, log_var


class TwoViews(nn.Module):
    """Similarities of two noisy views, for a contrastive loss."""

    def __init__(self, temperature: float = 0.2) -> None:
        super().__init__()
        self.net, self.temperature = stack([16, 64, 64, 16], nn.ReLU), temperature

    def forward(self, x: Tensor) -> Tensor:
        a, b = (F.normalize(self.net(x + 0.3 * torch.randn_like(x)), dim=1) for _ in range(2))
        return a @ b.T / self.temperature


class Bag(nn.Module):
    """The mean of word vectors, and a perceptron."""

    def __init__(self, vocab: int = 200, out: int = 5) -> None:
        super().__init__()
        self.bag, self.head = nn.EmbeddingBag(vocab, 32), stack([32, 32, out], nn.LeakyReLU)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.bag(x))


class CharMLP(nn.Module):
    """Embeddings side by side, and a perceptron."""

    def __init__(
        self, vocab: int, length: int, sizes: list[int], act: Callable = nn.Tanh, norm: Callable | None = None
    ) -> None:
        super().__init__()
        self.emb = nn.Embedding(vocab, 8)
        self.net = stack([8 * length, *sizes, vocab], act, norm)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.emb(x).flatten(1))


class SelfNorm(nn.Module):
    """SELU with LeCun's init (Klambauer et al. 2017)."""

    def __init__(self, sizes: list[int]) -> None:
        super().__init__()
        self.net = stack(sizes, nn.SELU)
        for m in self.net:
            if isinstance(m, nn.Linear):
                nn.init.normal_(m.weight, std=m.in_features**-0.5)
                nn.init.zeros_(m.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def gain(net: nn.Module, g: float, head: float = 1.0) -> nn.Module:
    """Every matrix from N(0, (g / sqrt(fan_in))^2), the last one times `head` more."""
    layers = [m for m in net.modules() if isinstance(m, nn.Linear | nn.Conv2d | nn.Conv1d)]
    for m in layers:
        fan_in = m.weight[0].numel()
        nn.init.normal_(m.weight, std=g * fan_in**-0.5)
        if m.bias is not None:
            nn.init.zeros_(m.bias)
    with torch.no_grad():
        layers[-1].weight.mul_(head / g if head != 1.0 else 1.0)
    return net


def head_times(net: nn.Module, factor: float) -> nn.Module:
    """The last Linear\'s weights times a factor."""
    last = [m for m in net.modules() if isinstance(m, nn.Linear)][-1]
    with torch.no_grad():
        last.weight.mul_(factor)
    return net
