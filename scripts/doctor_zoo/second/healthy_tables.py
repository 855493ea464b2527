"""Perceptrons on points and tables that train well."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from doctor_zoo.case import Case
from doctor_zoo.second import data as d
from doctor_zoo.second import mistakes as m
from doctor_zoo.second import networks as n
from doctor_zoo.second import recipe as r


def healthy_tables() -> list[Case]:
    """Return the runs."""
    h = r.Cases()
    h(
        "healthy/spirals-tanh-adam",
        lambda: r.fit(n.stack([2, 64, 64, 3], nn.Tanh), d.spirals(), r.opt("Adam", 0.003), steps=1000),
        50,
    )
    h(
        "healthy/spirals-silu-adamw-long",
        lambda: r.fit(n.stack([2, 64, 64, 64, 3], nn.SiLU), d.spirals(), r.opt("AdamW", 0.002), steps=2000, val=0.2),
    )
    h(
        "healthy/spirals-relu-nesterov-cosine",
        lambda: r.fit(
            n.stack([2, 64, 64, 3]),
            d.spirals(),
            r.opt("SGD", 0.05, momentum=0.9, nesterov=True),
            steps=1000,
            sched=r.cosine(1000),
        ),
        10,
    )
    h("healthy/spirals-res-layernorm", lambda: r.fit(n.ResMLP(2, 32, 3), d.spirals(), r.opt("AdamW", 0.001), steps=600))
    h(
        "healthy/spirals-batchnorm-val",
        lambda: r.fit(
            n.stack([2, 64, 64, 3], nn.ReLU, nn.BatchNorm1d), d.spirals(), r.opt("Adam", 0.003), steps=600, val=0.2
        ),
        50,
    )
    h(
        "healthy/parity-tanh-adam",
        lambda: r.fit(
            n.stack([5, 64, 64, 1], nn.Tanh),
            d.parity(),
            r.opt("Adam", 0.003),
            F.binary_cross_entropy_with_logits,
            steps=600,
        ),
    )
    h(
        "healthy/parity-relu-rmsprop",
        lambda: r.fit(
            n.stack([5, 64, 64, 1]), d.parity(), r.opt("RMSprop", 0.001), F.binary_cross_entropy_with_logits, steps=500
        ),
        10,
    )
    h(
        "healthy/waves-tanh-adam",
        lambda: r.fit(
            n.stack([1, 64, 64, 1], nn.Tanh), d.waves(), r.opt("Adam", 0.003), F.mse_loss, steps=1000, val=0.1
        ),
    )
    h(
        "healthy/waves-softplus-adam",
        lambda: r.fit(n.stack([1, 64, 64, 1], nn.Softplus), d.waves(), r.opt("Adam", 0.005), F.mse_loss, steps=1000),
        50,
    )
    h(
        "healthy/waves-elu-onecycle",
        lambda: r.fit(
            n.stack([1, 64, 64, 1], nn.ELU),
            d.waves(),
            r.opt("Adam", 0.01),
            F.mse_loss,
            steps=600,
            sched=r.one_cycle(0.01, 600),
        ),
        10,
    )
    h(
        "healthy/prices-raw-targets-adam",
        lambda: r.fit(n.stack([10, 64, 64, 1]), d.house_prices(), r.opt("Adam", 0.01), F.mse_loss, steps=1000, val=0.2),
    )
    h(
        "healthy/prices-huber",
        lambda: r.fit(
            n.stack([10, 64, 1], nn.GELU),
            (lambda t: (t[0], (t[1] - 200) / 50))(d.house_prices()),
            r.opt("AdamW", 0.003),
            F.smooth_l1_loss,
            steps=500,
            val=0.2,
        ),
    )
    h(
        "healthy/tabular-relu-sgd-momentum",
        lambda: r.fit(n.stack([16, 64, 64, 6]), d.tabular(), r.opt("SGD", 0.05, momentum=0.9), steps=400, val=0.2),
    )
    h(
        "healthy/tabular-relu-adagrad",
        lambda: r.fit(n.stack([16, 64, 64, 6]), d.tabular(), r.opt("Adagrad", 0.02), steps=400),
        50,
    )
    h(
        "healthy/tabular-dropout-adam-short",
        lambda: r.fit(n.stack([16, 128, 64, 6], drop=0.3), d.tabular(), r.opt("Adam", 0.002), steps=150),
    )
    h(
        "healthy/tabular-leaky-batchnorm-b64",
        lambda: r.fit(
            n.stack([16, 64, 64, 6], nn.LeakyReLU, nn.BatchNorm1d),
            d.tabular(),
            r.opt("SGD", 0.1),
            batch=64,
            steps=400,
            val=0.2,
        ),
        10,
    )
    h(
        "healthy/tabular-sigmoid-one-hidden",
        lambda: r.fit(n.stack([16, 64, 6], nn.Sigmoid), d.tabular(), r.opt("Adam", 0.01), steps=400),
    )
    h(
        "healthy/tabular-hardtanh-adam",
        lambda: r.fit(n.stack([16, 64, 64, 6], nn.Hardtanh), d.tabular(), r.opt("Adam", 0.002), steps=400),
        50,
    )
    h(
        "healthy/tabular-selu-8-layers",
        lambda: r.fit(n.SelfNorm([16] + [48] * 8 + [6]), d.tabular(), r.opt("Adam", 0.0005), steps=500),
    )
    h("healthy/tabular-linear-only", lambda: r.fit(nn.Linear(16, 6), d.tabular(), r.opt("SGD", 0.1), steps=300))
    h(
        "healthy/tabular-linear-sgd-b256",
        lambda: r.fit(nn.Linear(16, 6), d.tabular(), r.opt("SGD", 0.5), batch=256, steps=300, val=0.2),
        10,
    )
    h(
        "healthy/tabular-weight-norm",
        lambda: r.fit(
            nn.Sequential(
                nn.utils.parametrizations.weight_norm(nn.Linear(16, 64)),
                nn.ReLU(),
                nn.utils.parametrizations.weight_norm(nn.Linear(64, 64)),
                nn.ReLU(),
                nn.Linear(64, 6),
            ),
            d.tabular(),
            r.opt("Adam", 0.003),
            steps=400,
        ),
    )
    h(
        "healthy/tabular-rmsnorm-gelu",
        lambda: r.fit(n.stack([16, 64, 64, 6], nn.GELU, nn.RMSNorm), d.tabular(), r.opt("AdamW", 0.002), steps=400),
        50,
    )
    h(
        "healthy/tabular-label-smoothing",
        lambda: r.fit(
            n.stack([16, 64, 64, 6], nn.Mish),
            d.tabular(),
            r.opt("AdamW", 0.002),
            partial(F.cross_entropy, label_smoothing=0.1),
            steps=400,
            val=0.2,
            log=True,
        ),
    )
    h(
        "healthy/tabular-relu-kaiming-narrow-b8",
        lambda: r.fit(
            n.gain(n.stack([16, 32, 32, 6]), 2**0.5, head=0.3), d.tabular(), r.opt("SGD", 0.02), batch=8, steps=600
        ),
    )
    h(
        "healthy/imbalanced-relu-adam",
        lambda: r.fit(n.stack([12, 32, 32, 2]), d.imbalanced(), r.opt("Adam", 0.003), steps=500, val=0.2),
    )
    h(
        "healthy/imbalanced-bce-bias-prior",
        lambda: r.fit(
            m.with_prior(n.stack([12, 32, 1], nn.Tanh)),
            (lambda t: (t[0], t[1].float()[:, None]))(d.imbalanced()),
            r.opt("Adam", 0.003),
            F.binary_cross_entropy_with_logits,
            steps=500,
        ),
        50,
    )
    h(
        "healthy/imbalanced-weighted",
        lambda: r.fit(
            n.stack([12, 32, 2], nn.ReLU),
            d.imbalanced(),
            r.opt("Adam", 0.002),
            partial(F.cross_entropy, weight=torch.tensor([0.53, 10.0])),
            steps=500,
        ),
    )
    h(
        "healthy/multilabel-relu-adam",
        lambda: r.fit(
            n.stack([20, 64, 64, 8]),
            d.multi_label(),
            r.opt("Adam", 0.002),
            F.binary_cross_entropy_with_logits,
            steps=400,
            val=0.2,
        ),
    )
    h(
        "healthy/multilabel-batchnorm",
        lambda: r.fit(
            n.stack([20, 64, 8], nn.ReLU, nn.BatchNorm1d),
            d.multi_label(),
            r.opt("SGD", 0.1, momentum=0.9),
            F.binary_cross_entropy_with_logits,
            steps=400,
            val=0.2,
        ),
        10,
    )
    h(
        "healthy/tabular-relu-adamw-long-zero-loss",
        lambda: r.fit(n.stack([16, 128, 128, 6]), d.tabular(spread=0.3), r.opt("AdamW", 0.002), steps=2000),
    )
    h(
        "healthy/tabular-noisy-plateau",
        lambda: r.fit(n.stack([16, 64, 6], nn.ReLU), d.noisy_table(), r.opt("Adam", 0.001), steps=800),
        50,
    )
    return h.cases
