"""Networks whose data, graph or statistics are wrong."""

import math
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
    FROZEN,
    MISMATCH,
    MOMENTUM,
    NON_FINITE,
    OVERFITTING,
    SMALL_BATCH,
    SPIKES,
    STUCK,
    TOO_LARGE,
)


def sick_training() -> list[Case]:
    """Return the runs."""
    s = r.Cases()
    s(
        "prices-rare-targets",
        SPIKES,
        lambda: r.fit(
            n.stack([10, 64, 64, 1]),
            m.with_rare((lambda t: (t[0], (t[1] - 200) / 50))(d.house_prices()), y=60.0),
            r.opt("Adam", 0.001),
            F.mse_loss,
            steps=800,
        ),
    )
    s(
        "waves-rare-inputs",
        SPIKES,
        lambda: r.fit(
            n.stack([1, 64, 64, 1], nn.SiLU),
            m.with_rare(d.waves(), x=300.0),
            r.opt("Adam", 0.001),
            F.mse_loss,
            steps=800,
        ),
        10,
    )
    s(
        "tabular-log-zero",
        NON_FINITE,
        lambda: r.fit(
            n.stack([16, 64, 6]), (lambda t: (t[0] * 30, t[1]))(d.tabular()), r.opt("SGD", 0.1), m.log_of_softmax
        ),
        100,
        True,
    )
    s(
        "waves-log-of-negative-rate",
        NON_FINITE,
        lambda: r.fit(
            n.stack([1, 32, 1], nn.Tanh),
            (lambda t: (t[0], t[1] ** 2))(d.waves()),
            r.opt("Adam", 0.01),
            lambda o, y: (o - y * o.log()).mean(),
        ),
        50,
        True,
    )
    s(
        "tabular-nan-value",
        NON_FINITE,
        lambda: r.fit(n.stack([16, 64, 6]), m.with_one(d.tabular(), math.nan), r.opt("Adam", 0.001)),
        100,
        True,
    )
    s(
        "text-lstm-inf-target",
        NON_FINITE,
        lambda: r.fit(
            n.Recurrent(nn.LSTM, None, 1, hidden=24),
            m.with_one(d.time_series(), math.inf),
            r.opt("Adam", 0.001),
            F.mse_loss,
        ),
        10,
        True,
    )
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
    s(
        "tabular-detach-middle",
        FROZEN,
        lambda: r.fit(m.Cut(n.stack([16, 64, 32]), n.stack([32, 64, 6])), d.tabular(), r.opt("Adam", 0.001)),
        100,
        True,
    )
    s(
        "text-gru-embedding-not-in-optimizer",
        FROZEN,
        lambda: m.forgetting(n.Recurrent(nn.GRU, d.LETTERS, d.LETTERS), "emb", d.text(), r.sequence_loss),
        100,
        True,
    )
    s(
        "shapes-resnet-stage-not-in-optimizer",
        FROZEN,
        lambda: m.forgetting(n.SmallResNet(), "body.0", d.images()),
        50,
        True,
    )
    s("shapes-unused-head", FROZEN, lambda: r.fit(m.Extra(n.conv_plain()), d.images(), r.opt("Adam", 0.001)), 100, True)
    s(
        "encoder-no-grad-body",
        FROZEN,
        lambda: r.fit(m.NoGradEncoder(), d.reverse(), r.opt("Adam", 0.001), r.sequence_loss),
        100,
        True,
    )
    s("tabular-plain-list-of-layers", FROZEN, lambda: m.hidden_list(), 100, True)
    s(
        "tabular-shuffled-labels",
        STUCK,
        lambda: r.fit(
            n.stack([16, 64, 6]),
            (lambda t: (t[0], t[1][torch.randperm(len(t[1]))]))(d.tabular(n=16000)),
            r.opt("SGD", 0.03),
            steps=450,
        ),
        100,
        True,
    )
    s(
        "shapes-shuffled-labels",
        STUCK,
        lambda: r.fit(
            n.depthwise(),
            (lambda t: (t[0], t[1][torch.randperm(len(t[1]))]))(d.images(14000)),
            r.opt("SGD", 0.02),
            steps=430,
        ),
        50,
        True,
    )
    s(
        "reverse-random-targets",
        STUCK,
        lambda: r.fit(
            n.Encoder(8),
            (lambda t: (t[0], torch.randint(8, t[1].shape)))(d.reverse(16000)),
            r.opt("AdamW", 0.001),
            r.sequence_loss,
            steps=450,
        ),
        100,
        True,
    )
    s(
        "parity-linear",
        STUCK,
        lambda: r.fit(
            nn.Linear(5, 1), d.parity(16000), r.opt("Adam", 0.01), F.binary_cross_entropy_with_logits, steps=450
        ),
        100,
        True,
    )
    s(
        "text-inputs-are-zero",
        STUCK,
        lambda: r.fit(
            n.stack([16, 64, 6], nn.Tanh), (lambda t: (t[0] * 0, t[1]))(d.tabular(16000)), r.opt("SGD", 0.05), steps=450
        ),
        50,
        True,
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
    s(
        "unet-detached-skip",
        FROZEN,
        lambda: r.fit(m.CutUNet(), d.masks(), r.opt("Adam", 0.003), batch=16, steps=200),
        100,
        True,
    )
    s(
        "encoder-item-detached-embedding",
        FROZEN,
        lambda: r.fit(m.CutEmbedding(), d.text(), r.opt("Adam", 0.003), r.sequence_loss),
        50,
        True,
    )
    s(
        "text-lstm-layer-forgotten",
        FROZEN,
        lambda: m.forgetting(n.Recurrent(nn.LSTM, d.LETTERS, d.LETTERS), "rnn", d.text(), r.sequence_loss),
        100,
        True,
    )
    s(
        "shapes-labels-random",
        STUCK,
        lambda: r.fit(
            n.SmallResNet(),
            (lambda x: (x, torch.randint(4, (len(x),))))(d.images(9000)[0]),
            r.opt("SGD", 0.02),
            steps=430,
            batch=20,
        ),
        100,
        True,
    )
    s(
        "series-noise-targets",
        STUCK,
        lambda: r.fit(
            n.Recurrent(nn.GRU, None, 1, hidden=16),
            (lambda t: (t[0], torch.randn_like(t[1])))(d.time_series(15000)),
            r.opt("Adam", 0.001),
            F.mse_loss,
            steps=450,
        ),
        50,
        True,
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
