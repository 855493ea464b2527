"""Networks that are cut, stuck, or fed with what nobody can learn."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from doctor_zoo.case import Case
from doctor_zoo.second import data as d
from doctor_zoo.second import mistakes as m
from doctor_zoo.second import networks as n
from doctor_zoo.second import recipe as r
from doctor_zoo.sick import (
    FROZEN,
    NON_FINITE,
    SPIKES,
    STUCK,
)


def sick_graphs() -> list[Case]:
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
    return s.cases
