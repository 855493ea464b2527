"""Networks that learn although something looks wrong: plateaus, cells over time, sums, weights, targets that follow."""

import copy
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from doctor_zoo.case import Case, Run
from doctor_zoo.second import data as d
from doctor_zoo.second import networks as n
from doctor_zoo.second import recipe as r
from doctor_zoo.second.sick_standstills import _sum, _times


class Cell(nn.Module):
    """A recurrent cell by hand, as torch initialises it: what its first steps say fades on its way back."""

    def __init__(self, out: int = 3, hidden: int = 32) -> None:
        super().__init__()
        self.inputs, self.state = nn.Linear(1, hidden), nn.Linear(hidden, hidden, bias=False)
        self.head = nn.Linear(hidden, out)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), self.state.in_features)
        for t in range(x.shape[1]):
            h = torch.tanh(self.inputs(x[:, t]) + self.state(h))
        return self.head(h)


class FixedPoint(nn.Module):
    """Settles before it answers (Bai, Kolter and Koltun 2019, arXiv 1909.01377); its units become flat as it learns."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs, self.state, self.head = nn.Linear(16, 40), nn.Linear(40, 40), nn.Linear(40, 6)

    def forward(self, x: Tensor) -> Tensor:
        u = self.inputs(x)
        h = torch.zeros_like(u)
        with torch.no_grad():
            for _ in range(15):
                h = torch.tanh(self.state(h) + u)
        return self.head(torch.tanh(self.state(h) + u))


class GatedConvolutions(nn.Module):
    """Dilated convolutions with gates (van den Oord et al. 2016, arXiv 1609.03499)."""

    def __init__(self, channels: int = 24, blocks: int = 4) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, channels, 1)
        self.gates = nn.ModuleList(nn.Conv1d(channels, 2 * channels, 2, dilation=2**i) for i in range(blocks))
        self.mixes = nn.ModuleList(nn.Conv1d(channels, channels, 1) for _ in range(blocks))
        self.head = nn.Conv1d(channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x.mT)
        for i, (gate, mix) in enumerate(zip(self.gates, self.mixes, strict=True)):
            a, b = gate(F.pad(h, (2**i, 0))).chunk(2, 1)
            h = h + mix(torch.tanh(a) * torch.sigmoid(b))
        return self.head(h).mT


def _detector() -> Run:
    """What is looked for is rare, and the bias says so (Lin et al. 2017, arXiv 1708.02002)."""
    net = nn.Sequential(
        nn.Conv2d(1, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 1, 1)
    )
    nn.init.constant_(net[-1].bias, -4.6)  # type: ignore[arg-type]
    y = (torch.rand(1000, 1, 8, 8) < 0.04).float()
    return r.fit(net, (2 * y + 0.5 * torch.randn_like(y), y), r.opt("Adam", 0.001), _focal, 400, batch=16)


def _focal(out: Tensor, y: Tensor) -> Tensor:
    p = torch.sigmoid(out)
    right = p * y + (1 - p) * (1 - y)
    losses = (1 - right) ** 2 * F.binary_cross_entropy_with_logits(out, y, reduction="none")
    return losses.sum() / y.sum().clamp(min=1)


class Followed(nn.Module):
    """A network with a copy that follows it, which no gradient and no optimizer touches, as in Q-learning."""

    def __init__(self) -> None:
        super().__init__()
        self.online = n.stack([10, 64, 64, 1], nn.SiLU)
        self.slow = copy.deepcopy(self.online)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            for slow, fast in zip(self.slow.parameters(), self.online.parameters(), strict=True):
                slow.lerp_(fast, 0.05)
            target = self.slow(x)
        return self.online(x), target


def _towards_both(out: tuple[Tensor, Tensor], y: Tensor) -> Tensor:
    online, slow = out
    return F.mse_loss(online, y) + 0.1 * F.mse_loss(online, slow)


def _followed() -> Run:
    net = Followed()
    x, y = d.house_prices()
    held = list(net.online.parameters())
    return r.fit(
        net, (x, (y - y.mean()) / y.std()), lambda _: torch.optim.Adam(held, lr=1e-3), _towards_both, steps=500
    )


def _le_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 3), nn.Tanh(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(64, 48), nn.Tanh(), nn.Linear(48, 4),
    )  # fmt: skip


def _noisy_prices(noise: float) -> tuple[Tensor, Tensor]:
    x, y = d.house_prices()
    return x, (y - y.mean()) / y.std() + 2 + noise * torch.randn_like(y)


def healthy_plateaus() -> list[Case]:
    """Return the runs."""
    h = r.Cases()
    for every in (10, 100):
        h(
            f"healthy/pulses-cell-by-hand-{every}",
            lambda: r.fit(
                Cell(), (lambda data: (data[0].mT[:, ::2], data[1]))(d.pulses()), r.opt("Adam", 0.003), steps=900,
                trainer={"gradient_clip_val": 1.0},
            ),
            every,
        )  # fmt: skip
        h(
            f"healthy/shapes-lenet-{every}",
            lambda: r.fit(_le_net(), d.images(), r.opt("SGD", 0.05, momentum=0.9), steps=900),
            every,
        )
    h(
        "healthy/tabular-sum",
        lambda: r.fit(n.stack([16, 64, 64, 6]), d.tabular(), r.opt("SGD", 0.003), _sum, steps=500),
    )
    h(
        "healthy/tabular-loss-1e-3",
        lambda: r.fit(n.stack([16, 64, 64, 6]), d.tabular(), r.opt("Adam", 0.001), _times(1e-3), steps=500),
    )
    h("healthy/prices-followed", _followed, 10)
    for share in (0.5, 0.9):
        h(
            f"healthy/prices-warm-up-{share}",
            partial(_slow_start, share),
            10,
        )
    for noise in (1.0, 3.0):
        h(
            f"healthy/prices-noise-{noise:g}",
            lambda noise=noise: r.fit(
                n.stack([10, 64, 1]), _noisy_prices(noise), r.opt("Adam", 0.003), F.mse_loss, steps=600
            ),
        )
    for every in (10, 100):
        h(
            f"healthy/tabular-fixed-point-{every}",
            lambda: r.fit(FixedPoint(), d.tabular(), r.opt("Adam", 0.003), steps=600),
            every,
        )
        h(
            f"healthy/series-gated-convolutions-{every}",
            lambda: r.fit(GatedConvolutions(), d.time_series(), r.opt("Adam", 0.003), F.mse_loss, steps=600),
            every,
        )
        h(f"healthy/detector-{every}", _detector, every)
    h(
        "healthy/characters-large-batch",
        lambda: r.fit(n.CharMLP(d.LETTERS, 6, [64, 64]), d.characters(8000), r.opt("SGD", 0.1), steps=900, batch=64),
        10,
    )
    return h.cases


def _slow_start(share: float) -> Run:
    """A warm-up over this share of the run."""
    return r.fit(
        n.ResMLP(16, 32, 6), d.tabular(), r.opt("AdamW", 0.002), steps=500, sched=r.warm_up(round(500 * share))
    )
