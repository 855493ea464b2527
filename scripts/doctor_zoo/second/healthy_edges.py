"""Networks that train well with unusual inits, rates, losses and batches."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, MultiStepLR

from doctor_zoo.case import Case
from doctor_zoo.second import data as d
from doctor_zoo.second import mistakes as m
from doctor_zoo.second import networks as n
from doctor_zoo.second import recipe as r


def healthy_edges() -> list[Case]:
    """Return the runs."""
    h = r.Cases()
    h(
        "healthy/tabular-xavier-relu",
        lambda: r.fit(m.xavier(n.stack([16, 64, 64, 6])), d.tabular(), r.opt("Adam", 0.001), steps=400),
    )
    h(
        "healthy/tabular-xavier-layernorm",
        lambda: r.fit(
            m.xavier(n.stack([16, 64, 64, 6], nn.GELU, nn.LayerNorm)),
            d.tabular(),
            r.opt("AdamW", 0.001),
            steps=400,
            val=0.1,
        ),
    )
    h(
        "healthy/tabular-orthogonal-tanh-6",
        lambda: r.fit(
            m.orthogonal(n.stack([16] + [64] * 6 + [6], nn.Tanh)), d.tabular(), r.opt("SGD", 0.05), steps=500
        ),
    )
    h(
        "healthy/text-gpt-init",
        lambda: r.fit(
            m.gpt(n.Encoder(d.LETTERS, causal=True, layers=3)),
            d.text(),
            r.opt("AdamW", 0.001),
            r.sequence_loss,
            steps=500,
            sched=r.warm_up(100),
        ),
    )
    h(
        "healthy/text-encoder-adamw-3e-4",
        lambda: r.fit(
            n.Encoder(d.LETTERS, causal=True, drop=0.1), d.text(), r.opt("AdamW", 0.0003), r.sequence_loss, steps=600
        ),
        50,
    )
    h(
        "healthy/text-rnn-gru-stacked-dropout",
        lambda: r.fit(
            n.Recurrent(nn.GRU, d.LETTERS, d.LETTERS, layers=2, dropout=0.2),
            d.text(),
            r.opt("RMSprop", 0.002),
            r.sequence_loss,
            steps=400,
            val=0.1,
        ),
    )
    h(
        "healthy/shapes-warm-restarts",
        lambda: r.fit(
            n.SmallResNet(),
            d.images(),
            r.opt("SGD", 0.1, momentum=0.9),
            steps=400,
            sched=lambda o: CosineAnnealingWarmRestarts(o, 100),
            val=0.2,
        ),
    )
    h(
        "healthy/shapes-conv-adam-1e-2",
        lambda: r.fit(n.conv_plain(norm=nn.BatchNorm2d), d.images(), r.opt("Adam", 0.01), steps=400, val=0.2),
        10,
    )
    h(
        "healthy/shapes-batch8-batchnorm2d",
        lambda: r.fit(n.SmallResNet(), d.images(), r.opt("AdamW", 0.001), batch=8, steps=400, val=0.2),
    )
    h(
        "healthy/shapes-conv-b128",
        lambda: r.fit(n.conv_plain(), d.images(4000), r.opt("Adam", 0.003), batch=128, steps=200, val=0.1),
        50,
    )
    h(
        "healthy/tabular-batchnorm-b16",
        lambda: r.fit(
            n.stack([16, 64, 64, 6], nn.ReLU, nn.BatchNorm1d),
            d.tabular(),
            r.opt("Adam", 0.002),
            batch=16,
            steps=500,
            val=0.1,
        ),
    )
    h(
        "healthy/tabular-batchnorm-momentum-0.01-long",
        lambda: r.fit(
            n.stack([16, 64, 64, 6], nn.ReLU, partial(nn.BatchNorm1d, momentum=0.01)),
            d.tabular(),
            r.opt("Adam", 0.001),
            steps=1500,
            val=0.1,
        ),
    )
    h(
        "healthy/tabular-adamw-1e-2-high-but-fine",
        lambda: r.fit(n.stack([16, 64, 64, 6]), d.tabular(), r.opt("AdamW", 0.01), steps=500, val=0.1),
    )
    h(
        "healthy/tabular-wide-256",
        lambda: r.fit(n.stack([16, 256, 256, 256, 6]), d.tabular(), r.opt("Adam", 0.001), steps=300),
        10,
    )
    h("healthy/tabular-narrow-8", lambda: r.fit(n.stack([16, 8, 8, 6]), d.tabular(), r.opt("Adam", 0.005), steps=800))
    h(
        "healthy/tabular-20-classes",
        lambda: r.fit(
            n.stack([16, 64, 20]), d.tabular(classes=20), r.opt("SGD", 0.1, momentum=0.9), steps=400, val=0.1
        ),
    )
    h(
        "healthy/tabular-standard-noise-3",
        lambda: r.fit(
            n.stack([16, 64, 64, 6], nn.ReLU, drop=0.5),
            d.tabular(n=8000, spread=3.0),
            r.opt("Adam", 0.001),
            steps=600,
            val=0.1,
        ),
        50,
    )
    h(
        "healthy/regression-noisy-ceiling",
        lambda: r.fit(
            n.stack([10, 32, 1], nn.Tanh),
            (lambda x: (x, 0.5 * x[:, :1] + torch.randn(len(x), 1)))(torch.randn(6000, 10)),
            r.opt("Adam", 0.003),
            F.mse_loss,
            steps=600,
            val=0.1,
        ),
    )
    h(
        "healthy/regression-mean-unshifted-tanh",
        lambda: r.fit(
            n.stack([10, 64, 64, 1], nn.Tanh),
            (lambda t: (t[0], t[1] / 50))(d.house_prices()),
            r.opt("Adam", 0.005),
            F.mse_loss,
            steps=800,
        ),
    )
    h(
        "healthy/prices-l1",
        lambda: r.fit(
            n.stack([10, 64, 64, 1], nn.SiLU),
            (lambda t: (t[0], (t[1] - 200) / 50))(d.house_prices()),
            r.opt("AdamW", 0.003),
            F.l1_loss,
            steps=500,
        ),
        50,
    )
    h(
        "healthy/imbalanced-1-percent",
        lambda: r.fit(n.stack([12, 32, 2]), d.imbalanced(8000, 0.01), r.opt("Adam", 0.001), steps=600, val=0.2),
    )
    h(
        "healthy/binary-rare-labels-sgd",
        lambda: r.fit(
            n.stack([20, 64, 8]),
            (lambda t: (t[0], t[1] * (torch.rand_like(t[1]) < 0.3)))(d.multi_label()),
            r.opt("SGD", 0.3),
            F.binary_cross_entropy_with_logits,
            steps=600,
        ),
    )
    h(
        "healthy/parity-sgd-slow-start",
        lambda: r.fit(
            n.stack([5, 64, 64, 1], nn.Tanh),
            d.parity(8000),
            r.opt("SGD", 0.3, momentum=0.9),
            F.binary_cross_entropy_with_logits,
            steps=1500,
        ),
    )
    h(
        "healthy/waves-sgd-slow",
        lambda: r.fit(
            n.stack([1, 64, 64, 1], nn.Tanh), d.waves(), r.opt("SGD", 0.05, momentum=0.9), F.mse_loss, steps=1500
        ),
        50,
    )
    h("healthy/pretrained-continue", lambda: m.pretrained())
    h("healthy/finetune-head-only", lambda: m.head_only(), 50)
    h(
        "healthy/teacher-distill-kl",
        lambda: r.fit(
            n.stack([16, 64, 6]),
            (lambda t: (t[0], F.softmax(t[0][:, :6] * 2, 1)))(d.tabular()),
            r.opt("Adam", 0.003),
            lambda o, y: F.kl_div(F.log_softmax(o, 1), y, reduction="batchmean"),
            steps=400,
        ),
    )
    h(
        "healthy/nll-gaussian",
        lambda: r.fit(
            n.stack([1, 64, 2], nn.Tanh),
            d.waves(),
            r.opt("Adam", 0.005),
            lambda o, y: F.gaussian_nll_loss(o[:, :1], y, F.softplus(o[:, 1:]) + 0.001),
            steps=800,
        ),
    )
    h(
        "healthy/triplet-margin",
        lambda: r.fit(
            n.stack([16, 64, 16]),
            d.tabular(),
            r.opt("Adam", 0.001),
            lambda o, y: (
                F.triplet_margin_loss(o[::2][:-1], o[::2][1:], o[1::2][1:], margin=1.0) * 0
                + F.cross_entropy(o[:, :6], y)
            ),
            steps=300,
        ),
    )
    h(
        "healthy/plateau-step-decay-tail",
        lambda: r.fit(
            n.stack([16, 64, 6]),
            d.tabular(),
            r.opt("SGD", 0.1),
            steps=1500,
            sched=lambda o: MultiStepLR(o, [500, 1000], 0.1),
        ),
    )
    h(
        "healthy/lstm-classifier-last",
        lambda: r.fit(
            n.Recurrent(nn.LSTM, None, 3, hidden=32, last=True),
            (lambda t: (t[0].transpose(1, 2), t[1]))(d.pulses()),
            r.opt("Adam", 0.002),
            steps=600,
            val=0.1,
            trainer={"gradient_clip_val": 1.0},
        ),
    )
    h(
        "healthy/mixed-l2-heavy",
        lambda: r.fit(n.stack([16, 64, 64, 6]), d.tabular(), r.opt("AdamW", 0.002, weight_decay=0.3), steps=500),
    )
    h(
        "healthy/clip-0.1",
        lambda: r.fit(
            n.stack([16, 64, 64, 6]), d.tabular(), r.opt("SGD", 0.3), steps=400, trainer={"gradient_clip_val": 0.1}
        ),
    )
    return h.cases
