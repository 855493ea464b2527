"""Networks that learn by heart, or whose batches and running statistics are wrong."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from doctor_zoo.case import Case
from doctor_zoo.second import data as d
from doctor_zoo.second import mistakes as m
from doctor_zoo.second import networks as n
from doctor_zoo.second import recipe as r
from doctor_zoo.sick import (
    BIAS,
    BLOWN_UP,
    MISMATCH,
    MOMENTUM,
    OVERFITTING,
    SMALL_BATCH,
    TOO_LARGE,
)


def sick_statistics() -> list[Case]:
    """Return the runs."""
    s = r.Cases()
    for k, crit in ((0.1, False), (1.0, True)):
        s(
            f"tabular-relu-adam-{k}",
            BLOWN_UP if crit else TOO_LARGE,
            lambda k=k: r.fit(n.stack([16, 64, 64, 6]), d.tabular(), r.opt("Adam", k * 3)),
            100,
            crit,
        )
        s(
            f"text-lstm-adam-{k}",
            TOO_LARGE,
            lambda k=k: r.fit(
                n.Recurrent(nn.LSTM, d.LETTERS, d.LETTERS), d.text(), r.opt("Adam", k * 2), r.sequence_loss
            ),
            100,
            False,
        )
        s(
            f"text-encoder-adamw-{k}",
            TOO_LARGE,
            lambda k=k: r.fit(n.Encoder(d.LETTERS, causal=True), d.text(), r.opt("AdamW", k), r.sequence_loss),
            50,
            crit,
        )
        s(
            f"shapes-conv-adam-{k}",
            TOO_LARGE,
            lambda k=k: r.fit(n.conv_plain(), d.images(), r.opt("Adam", k * 0.5)),
            100,
            False,
        )
    for k in (60, 150):
        s(
            f"tabular-{k}-examples",
            OVERFITTING,
            lambda k=k: m.few(n.stack([16, 200, 200, 6]), d.tabular(spread=2.5), k, r.opt("Adam", 0.002), steps=300),
        )
        s(
            f"shapes-resnet-{k // 2}-examples",
            OVERFITTING,
            lambda k=k: m.few(
                n.SmallResNet(r.GROUPS),
                (lambda t: (t[0] + 0.7 * torch.randn_like(t[0]), t[1]))(d.images()),
                k // 2,
                r.opt("Adam", 0.003),
                steps=300,
            ),
            50,
        )
        s(
            f"text-charmlp-{k * 4}-examples",
            OVERFITTING,
            lambda k=k: m.few(
                n.CharMLP(d.LETTERS, 6, [200], nn.GELU), d.characters(), 4 * k, r.opt("AdamW", 0.003), steps=400
            ),
        )
    for b in (2, 4):
        s(
            f"tabular-batchnorm-b{b}",
            SMALL_BATCH,
            lambda b=b: r.fit(
                n.stack([16, 64, 64, 6], nn.ReLU, nn.BatchNorm1d), d.tabular(), r.opt("SGD", 0.02), batch=b, val=0.1
            ),
        )
        s(
            f"multilabel-batchnorm-b{b}",
            SMALL_BATCH,
            lambda b=b: r.fit(
                n.stack([20, 64, 8], nn.SiLU, nn.BatchNorm1d),
                d.multi_label(),
                r.opt("Adam", 0.001),
                F.binary_cross_entropy_with_logits,
                batch=b,
            ),
            50,
        )
    s(
        "tabular-batchnorm-b1",
        (*SMALL_BATCH, "non_finite"),
        lambda: r.fit(n.stack([16, 64, 6], nn.ReLU, nn.BatchNorm1d), d.tabular(), r.opt("SGD", 0.02), batch=1),
        100,
        True,
    )
    for mom in (0.001, 0.0003):
        s(
            f"tabular-momentum-{mom}",
            MISMATCH,
            lambda mom=mom: r.fit(
                n.stack([16, 64, 64, 6], nn.ReLU, partial(nn.BatchNorm1d, momentum=mom)),
                d.tabular(n=2000),
                r.opt("Adam", 0.003),
                val=0.2,
            ),
        )
        s(
            f"pixels-unet-momentum-{mom}",
            MISMATCH,
            lambda mom=mom: r.fit(
                n.UNet(norm=partial(nn.BatchNorm2d, momentum=mom)),
                d.masks(600),
                r.opt("Adam", 0.003),
                batch=16,
                val=0.2,
                steps=200,
            ),
            50,
        )
    for mom in (0.9, 0.6):
        s(
            f"tabular-momentum-{mom}-b12",
            MOMENTUM,
            lambda mom=mom: r.fit(
                n.stack([16, 64, 64, 6], nn.ReLU, partial(nn.BatchNorm1d, momentum=mom)),
                d.tabular(),
                r.opt("SGD", 0.05),
                batch=12,
                val=0.1,
            ),
        )
    s(
        "multilabel-batchnorm-bias",
        BIAS,
        lambda: r.fit(
            nn.Sequential(nn.Linear(20, 64), nn.BatchNorm1d(64), nn.GELU(), nn.Linear(64, 8)),
            d.multi_label(),
            r.opt("Adam", 0.001),
            F.binary_cross_entropy_with_logits,
        ),
    )
    s(
        "pulses-conv1d-batchnorm-bias",
        BIAS,
        lambda: r.fit(
            nn.Sequential(
                nn.Conv1d(1, 16, 5),
                nn.BatchNorm1d(16),
                nn.ReLU(),
                nn.AdaptiveAvgPool1d(1),
                nn.Flatten(),
                nn.Linear(16, 3),
            ),
            d.pulses(),
            r.opt("Adam", 0.001),
        ),
    )
    for k in (40, 120):
        s(
            f"pulses-{k}-examples",
            OVERFITTING,
            lambda k=k: m.few(
                n.conv1d(nn.GELU),
                (lambda t: (t[0] + 0.6 * torch.randn_like(t[0]), t[1]))(d.pulses()),
                k,
                r.opt("Adam", 0.003),
                steps=300,
            ),
            50,
        )
        s(
            f"regression-{k}-examples",
            OVERFITTING,
            lambda k=k: m.few(
                n.stack([10, 200, 200, 1]),
                (lambda x: (x, x[:, :1] + 1.0 * torch.randn(len(x), 1)))(torch.randn(3000, 10)),
                k,
                r.opt("Adam", 0.002),
                loss=F.mse_loss,
                steps=400,
            ),
        )
        s(
            f"text-gru-{k}-examples",
            OVERFITTING,
            lambda k=k: m.few(
                n.Recurrent(nn.GRU, d.LETTERS, d.LETTERS, hidden=96),
                d.text(),
                k,
                r.opt("Adam", 0.01),
                loss=r.sequence_loss,
                steps=400,
            ),
        )
    for b in (2, 6):
        s(
            f"autoencoder-batchnorm-b{b}",
            SMALL_BATCH,
            lambda b=b: r.fit(
                n.stack([24, 48, 24], nn.ReLU, nn.BatchNorm1d), d.low_rank(), r.opt("Adam", 0.001), F.mse_loss, batch=b
            ),
        )
    for mom in (0.002, 0.0005):
        s(
            f"shapes-resnet-momentum-{mom}",
            MISMATCH,
            lambda mom=mom: r.fit(
                n.SmallResNet(partial(nn.BatchNorm2d, momentum=mom)),
                d.images(800),
                r.opt("AdamW", 0.003),
                val=0.2,
                steps=200,
            ),
        )
    return s.cases
