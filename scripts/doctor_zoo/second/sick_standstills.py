"""Losses that stand still or are lost at once: shapes that do not fit, inputs of nothing, weights and schedules."""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import ExponentialLR

from doctor_zoo.case import Case, Run
from doctor_zoo.second import data as d
from doctor_zoo.second import mistakes as m
from doctor_zoo.second import networks as n
from doctor_zoo.second import recipe as r

STUCK, SMALL, LARGE = ("loss_not_decreasing",), ("updates_too_small",), ("updates_too_large", "non_finite")


def _each_against_all(out: Tensor, y: Tensor) -> Tensor:
    """Outputs ``(N, 1)`` against targets ``(N,)``, which torch broadcasts."""
    return F.mse_loss(out, y[:, 0])


def _all_against_each(out: Tensor, y: Tensor) -> Tensor:
    return F.mse_loss(out[:, 0], y)


def _times(factor: float, loss: r.Loss = F.cross_entropy) -> r.Loss:
    return lambda out, y: factor * loss(out, y)


def _sum(out: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(out, y, reduction="sum")


def _scaled(data: tuple[Tensor, Tensor], x: float) -> tuple[Tensor, Tensor]:
    return x * data[0], data[1]


def _shuffled(data: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return data[0], data[1][torch.randperm(len(data[1]))]


def _of_softmax(out: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(out.softmax(-1), y)


def _relu6(std: float) -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(1, 12, 3, padding=1), nn.ReLU6()]
    for _ in range(3):
        layers += [nn.Conv2d(12, 12, 3, padding=1), nn.ReLU6()]
    for layer in layers[::2]:
        nn.init.normal_(layer.weight, 0, std)  # type: ignore[arg-type]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 4))


def _seven_convolutions(std: float) -> nn.Module:
    layers: list[nn.Module] = []
    for i in range(7):
        layers += [nn.Conv2d(12 if i else 1, 12, 3, padding=1), nn.ReLU()]
        nn.init.normal_(layers[-2].weight, 0, std)  # type: ignore[arg-type]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 4))


def _single_logit(bias: float) -> Run:
    def loss(out: Tensor, y: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(out[:, 0], (y < 3).float())

    return r.fit(m.with_bias(n.stack([16, 32, 1]), -1, bias), d.tabular(), r.opt("Adam", 0.003), loss)


def _never_updated(net: nn.Module, data: tuple[Tensor, Tensor], **more: Any) -> Run:
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.momentum = 0.0
    return r.fit(net, data, r.opt("Adam", 0.003), val=0.2, **more)


def sick_standstills() -> list[Case]:
    """Return the runs."""
    s = r.Cases()
    perceptron = partial(n.stack, [10, 64, 64, 1])
    for name, loss in (("columns", _each_against_all), ("rows", _all_against_each)):
        s(
            f"waves-tanh-broadcast-{name}",
            STUCK,
            lambda loss=loss: r.fit(n.stack([1, 64, 64, 1], nn.Tanh), d.waves(), r.opt("Adam", 0.003), loss, steps=500),
            10,
            True,
        )

    def targets(offset: float) -> tuple[Tensor, Tensor]:
        x, y = d.house_prices()
        return x, (y - y.mean()) / y.std() + offset

    for offset in (0, 3):
        s(
            f"prices-shuffled-offset-{offset}",
            STUCK,
            lambda offset=offset: r.fit(
                perceptron(), _shuffled(targets(offset)), r.opt("Adam", 0.001), F.mse_loss, steps=500
            ),
            100,
            True,
        )
    s(
        "prices-inputs-zeroed",
        STUCK,
        lambda: r.fit(perceptron(nn.SiLU), _scaled(targets(0), 0), r.opt("Adam", 0.001), F.mse_loss, steps=500),
        10,
        True,
    )
    s(
        "shapes-inputs-zeroed",
        STUCK,
        lambda: r.fit(n.conv_plain(), _scaled(d.images(), 0), r.opt("SGD", 0.05, momentum=0.9), steps=450),
        10,
        True,
    )
    s(
        "shapes-inputs-x1e-5",
        STUCK,
        lambda: r.fit(n.conv_plain(nn.Tanh), _scaled(d.images(), 1e-5), r.opt("SGD", 0.02, momentum=0.9), steps=500),
        50,
        True,
    )
    for power in (-5, -3):
        s(
            f"tabular-loss-1e{power}",
            SMALL,
            lambda power=power: r.fit(
                n.stack([16, 64, 64, 6]), d.tabular(), r.opt("SGD", 0.005), _times(10.0**power), steps=400
            ),
            10,
            True,
        )
    s(
        "text-encoder-loss-1e-4",
        SMALL,
        lambda: r.fit(
            n.Encoder(d.LETTERS, causal=True), d.text(), r.opt("SGD", 0.05), _times(1e-4, r.sequence_loss), steps=400
        ),
        100,
        True,
    )
    s(
        "tabular-sum-adam-1e-7",
        SMALL,
        lambda: r.fit(n.stack([16, 64, 64, 6], nn.GELU), d.tabular(), r.opt("Adam", 1e-7), _sum, steps=400),
        10,
        True,
    )
    networks = {"gelu": lambda: n.stack([16, 64, 64, 6], nn.GELU), "resmlp": lambda: n.ResMLP(16, 32, 6)}
    for name, net in networks.items():
        s(
            f"tabular-{name}-endless-warm-up",
            SMALL,
            lambda net=net: r.fit(net(), d.tabular(), r.opt("Adam", 0.001), steps=400, sched=r.warm_up(1_000_000)),
            10,
            True,
        )
    s(
        "tabular-rate-x0.8-a-step",
        (*SMALL, *STUCK),
        lambda: r.fit(
            n.stack([16, 64, 64, 64, 6], nn.GELU), d.tabular(), r.opt("Adam", 0.0005), steps=450,
            sched=lambda optimizer: ExponentialLR(optimizer, 0.8),
        ),
        10,
        True,
    )  # fmt: skip
    for bias in (-4, 6):
        s(f"tabular-single-logit-{bias}", ("initial_loss",), partial(_single_logit, bias), 10, bias == 6)
    s(
        "shapes-relu6-std-6",
        ("saturated_activation", "overconfident_output", "activation_scale_drift"),
        lambda: r.fit(_relu6(6.0), d.images(), r.opt("Adam", 0.001)),
        10,
        True,
    )
    s(
        "shapes-conv-7-std-0.05",
        ("vanishing_gradient", "activation_scale_drift"),
        lambda: r.fit(_seven_convolutions(0.05), d.images(), r.opt("SGD", 0.05, momentum=0.9), steps=450),
        10,
        True,
    )
    s(
        "shapes-resnet-momentum-0",
        ("batchnorm_statistics_mismatch",),
        lambda: _never_updated(n.SmallResNet(), d.images()),
    )
    s(
        "tabular-bn-momentum-0",
        ("batchnorm_statistics_mismatch",),
        lambda: _never_updated(n.stack([16, 64, 64, 6], nn.SiLU, nn.BatchNorm1d), d.tabular()),
    )
    for act in (nn.ReLU, nn.GELU):
        s(
            f"tabular-{act.__name__.lower()}-momentum-lr-2",
            LARGE,
            lambda act=act: r.fit(n.stack([16, 64, 64, 64, 6], act), d.tabular(), r.opt("SGD", 2.0, momentum=0.9)),
            10,
            True,
        )
    s(
        "tabular-sum-momentum-lr-0.2",
        LARGE,
        lambda: r.fit(n.stack([16, 64, 64, 6], nn.GELU), d.tabular(), r.opt("SGD", 0.2, momentum=0.9), _sum),
        10,
        True,
    )
    s(
        "shapes-bias-before-instancenorm",
        ("redundant_bias",),
        lambda: r.fit(
            nn.Sequential(
                nn.Conv2d(1, 16, 3, padding=1), nn.InstanceNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU(),
                nn.AdaptiveMaxPool2d(2), nn.Flatten(), nn.Linear(64, 4),
            ),
            d.images(), r.opt("Adam", 0.003),
        ),
    )  # fmt: skip
    s(
        "tabular-softmax-twice",
        STUCK,
        lambda: r.fit(n.stack([16, 64, 6]), d.tabular(), r.opt("Adam", 0.003), _of_softmax),
    )
    s(
        "shapes-softmax-twice",
        STUCK,
        lambda: r.fit(n.conv_plain(), d.images(), r.opt("SGD", 0.05, momentum=0.9), _of_softmax),
        10,
        True,
    )
    # Letters are not equally frequent: what is learned of shuffled ones is how much of each there is.
    s(
        "characters-shuffled",
        STUCK,
        lambda: r.fit(
            n.CharMLP(d.LETTERS, 6, [64, 64]), _shuffled(d.characters(8000)), r.opt("SGD", 0.1), steps=600, batch=64
        ),
        10,
        True,
    )
    s(
        "reverse-postnorm-warm-up-lr-0.1",
        LARGE,
        lambda: r.fit(
            n.Encoder(8, norm_first=False), d.reverse(), r.opt("AdamW", 0.1), r.sequence_loss, 400, sched=r.warm_up(40)
        ),
    )
    return s.cases
