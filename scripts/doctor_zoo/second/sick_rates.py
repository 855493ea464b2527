"""Networks that take steps of the wrong size."""

import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from doctor_zoo.case import Case
from doctor_zoo.second import data as d
from doctor_zoo.second import mistakes as m
from doctor_zoo.second import networks as n
from doctor_zoo.second import recipe as r
from doctor_zoo.sick import BLOWN_UP, DIVERGING, IMBALANCE, TOO_LARGE, TOO_SMALL


def sick_rates() -> list[Case]:
    """Return the runs."""
    s = r.Cases()
    s(
        "tabular-relu-sgd-5",
        BLOWN_UP,
        lambda: r.fit(n.stack([16, 64, 64, 6]), d.tabular(), r.opt("SGD", 5.0, momentum=0.9)),
        100,
        True,
    )
    s(
        "waves-tanh-sgd-3",
        BLOWN_UP,
        lambda: r.fit(n.stack([1, 64, 64, 1], nn.Tanh), d.waves(), r.opt("SGD", 3.0), F.mse_loss),
        50,
        True,
    )
    s(
        "prices-raw-targets-sgd-0.1",
        BLOWN_UP,
        lambda: r.fit(n.stack([10, 64, 64, 1]), d.house_prices(), r.opt("SGD", 0.1), F.mse_loss),
        100,
        True,
    )
    s(
        "shapes-resnet-sgd-30",
        TOO_LARGE,
        lambda: r.fit(n.SmallResNet(), d.images(), r.opt("SGD", 30.0, momentum=0.9)),
        100,
        False,
    )
    s(
        "autoencoder-rmsprop-0.3",
        TOO_LARGE,
        lambda: r.fit(n.stack([24, 64, 8, 64, 24]), d.low_rank(), r.opt("RMSprop", 0.3), F.mse_loss),
        100,
        False,
    )
    s("mixer-adamw-0.3", TOO_LARGE, lambda: r.fit(n.Mixer(), d.images(), r.opt("AdamW", 0.3)), 50, False)
    s(
        "tabular-no-zero-grad",
        DIVERGING,
        lambda: m.without_zero_grad(r.fit(n.stack([16, 64, 64, 6]), d.tabular(), r.opt("SGD", 0.05), steps=400)),
        100,
        True,
    )
    s(
        "waves-no-zero-grad",
        DIVERGING,
        lambda: m.without_zero_grad(
            r.fit(n.stack([1, 64, 64, 1], nn.Tanh), d.waves(), r.opt("SGD", 0.05), F.mse_loss, steps=400)
        ),
        50,
        True,
    )
    s(
        "tabular-sign-of-loss",
        DIVERGING,
        lambda: r.fit(n.stack([16, 64, 6]), d.tabular(), r.opt("Adam", 0.001, maximize=True)),
        100,
        True,
    )
    s(
        "shapes-conv-rising-lr",
        DIVERGING,
        lambda: r.fit(
            n.conv_plain(), d.images(), r.opt("SGD", 0.05), sched=lambda o: LambdaLR(o, lambda i: 1.025**i), steps=400
        ),
        50,
        True,
    )
    for lr in (1e-06, 1e-05):
        s(
            f"tabular-relu-adam-{lr}",
            TOO_SMALL,
            lambda lr=lr: r.fit(n.stack([16, 64, 64, 6]), d.tabular(), r.opt("Adam", lr / 10), steps=400),
        )
        s(
            f"text-encoder-sgd-{lr}",
            TOO_SMALL,
            lambda lr=lr: r.fit(
                n.Encoder(d.LETTERS, causal=True), d.text(), r.opt("SGD", lr), r.sequence_loss, steps=300
            ),
        )
    s(
        "waves-tanh-sgd-1e-5",
        TOO_SMALL,
        lambda: r.fit(n.stack([1, 64, 64, 1], nn.Tanh), d.waves(), r.opt("SGD", 1e-05), F.mse_loss, steps=1000),
    )
    s(
        "shapes-resnet-sgd-1e-6",
        TOO_SMALL,
        lambda: r.fit(n.SmallResNet(), d.images(), r.opt("SGD", 1e-06), steps=300),
        50,
    )
    for k in (0.001, 300):
        s(
            f"tabular-tanh-layer-lr-x{k}",
            IMBALANCE + (("updates_too_large",) if k > 1 else ()),
            lambda k=k: m.with_own_lr(
                n.stack([16, 64, 64, 64, 6], nn.Tanh), 2, k, d.tabular(), 0.002 if k < 1 else 0.0002
            ),
        )
        s(
            f"spirals-silu-layer-lr-x{k}",
            IMBALANCE,
            lambda k=k: m.with_own_lr(
                n.stack([2, 64, 64, 64, 3], nn.SiLU), 4, k, d.spirals(), 0.002 if k < 1 else 0.0001
            ),
            50,
        )
    for k, crit in ((30, False), (300, True)):
        s(
            f"tabular-tanh-adam-lr-x{k}",
            TOO_LARGE,
            lambda k=k: r.fit(n.stack([16, 64, 64, 6], nn.Tanh), d.tabular(), r.opt("Adam", 0.002 * k)),
        )
        s(
            f"shapes-resnet-gn-adam-lr-x{k}",
            TOO_LARGE,
            lambda k=k: r.fit(n.SmallResNet(r.GROUPS), d.images(), r.opt("AdamW", 0.003 * k)),
            50,
        )
        s(
            f"text-gru-sgd-lr-x{k}",
            (*TOO_LARGE, "non_finite"),
            lambda k=k: r.fit(
                n.Recurrent(nn.GRU, d.LETTERS, d.LETTERS), d.text(), r.opt("SGD", 0.5 * k), r.sequence_loss
            ),
        )
        s(
            f"autoencoder-sgd-lr-x{k}",
            BLOWN_UP,
            lambda k=k: r.fit(
                n.stack([24, 64, 8, 64, 24]), d.low_rank(), r.opt("SGD", 0.3 * k, momentum=0.9), F.mse_loss
            ),
            100,
            crit,
        )
        s(
            f"unet-adam-lr-x{k}",
            TOO_LARGE,
            lambda k=k: r.fit(n.UNet(), d.masks(), r.opt("Adam", 0.005 * k), batch=16, steps=200),
            50,
        )
        s(
            f"reverse-encoder-lr-x{k}",
            TOO_LARGE,
            lambda k=k: r.fit(n.Encoder(8), d.reverse(), r.opt("Adam", 0.003 * k), r.sequence_loss, steps=400),
            100,
        )
    s(
        "shapes-resnet-no-zero-grad",
        DIVERGING,
        lambda: m.without_zero_grad(r.fit(n.SmallResNet(), d.images(), r.opt("SGD", 0.1, momentum=0.9), steps=300)),
        100,
        True,
    )
    s(
        "tabular-maximize-sgd",
        DIVERGING,
        lambda: r.fit(n.stack([16, 64, 64, 6]), d.tabular(), r.opt("SGD", 0.05, maximize=True)),
        100,
        True,
    )
    s(
        "text-gru-momentum-0.999",
        DIVERGING,
        lambda: r.fit(
            n.Recurrent(nn.GRU, d.LETTERS, d.LETTERS),
            d.text(),
            r.opt("SGD", 1.0, momentum=0.999),
            r.sequence_loss,
            steps=400,
        ),
        50,
        True,
    )
    for lr in (0.0001, 1e-05):
        s(
            f"shapes-conv-sgd-{lr}",
            TOO_SMALL,
            lambda lr=lr: r.fit(n.conv_plain(), d.images(), r.opt("SGD", lr), steps=400),
        )
        s(
            f"text-gru-adam-{lr / 100}",
            TOO_SMALL,
            lambda lr=lr: r.fit(
                n.Recurrent(nn.GRU, d.LETTERS, d.LETTERS), d.text(), r.opt("Adam", lr / 100), r.sequence_loss, steps=300
            ),
            50,
        )
        s(
            f"autoencoder-sgd-{lr}",
            TOO_SMALL,
            lambda lr=lr: r.fit(
                n.stack([24, 64, 8, 64, 24], nn.Tanh), d.low_rank(), r.opt("SGD", lr), F.mse_loss, steps=600
            ),
        )
    return s.cases
