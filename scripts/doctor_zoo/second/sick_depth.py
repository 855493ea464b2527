"""Networks whose scales, gradients or symmetry are wrong before the first step."""

import torch.nn.functional as F
from torch import nn

from doctor_zoo.case import Case
from doctor_zoo.second import data as d
from doctor_zoo.second import mistakes as m
from doctor_zoo.second import networks as n
from doctor_zoo.second import recipe as r
from doctor_zoo.sick import DRIFT, EXPLODING, HEAD, STUCK, SYMMETRIC, TOO_SMALL, VANISHING


def sick_depth() -> list[Case]:
    """Return the runs."""
    s = r.Cases()
    for g in (0.3, 0.1):
        s(
            f"spirals-tanh-6-layers-gain-{g}",
            VANISHING,
            lambda g=g: r.fit(n.gain(n.stack([2] + [64] * 6 + [3], nn.Tanh), g), d.spirals(), r.opt("SGD", 0.1)),
            100,
            g == 0.1,
        )
    for k in (6, 10):
        s(
            f"tabular-sigmoid-{k}-layers",
            VANISHING,
            lambda k=k: r.fit(n.stack([16] + [48] * k + [6], nn.Sigmoid), d.tabular(), r.opt("SGD", 0.1, momentum=0.9)),
            50,
            True,
        )
    s(
        "tabular-silu-10-layers-default",
        VANISHING,
        lambda: r.fit(n.stack([16] + [48] * 10 + [6], nn.SiLU), d.tabular(), r.opt("SGD", 0.05)),
        100,
        True,
    )
    s(
        "waves-relu-15-layers-default",
        DRIFT,
        lambda: r.fit(n.stack([1] + [48] * 15 + [1]), d.waves(), r.opt("SGD", 0.01), F.mse_loss),
    )
    for g in (3.0, 6.0):
        s(
            f"tabular-relu-6-layers-gain-{g:g}",
            EXPLODING + HEAD,
            lambda g=g: r.fit(n.gain(n.stack([16] + [64] * 6 + [6]), g, head=0.001), d.tabular(), r.opt("SGD", 0.001)),
        )
        s(
            f"waves-elu-6-layers-gain-{g:g}",
            EXPLODING + HEAD,
            lambda g=g: r.fit(
                n.gain(n.stack([1] + [48] * 6 + [1], nn.ELU), g), d.waves(), r.opt("Adam", 0.001), F.mse_loss
            ),
            50,
        )
    for g in (1.8, 2.2):
        s(
            f"series-rnn-relu-gain-{g}",
            EXPLODING + HEAD + ("non_finite", "loss_diverging", "updates_too_large"),
            lambda g=g: r.fit(
                m.with_state_gain(n.Recurrent(nn.RNN, None, 1, hidden=32, nonlinearity="relu"), g),
                d.time_series(length=60),
                r.opt("Adam", 0.001),
                F.mse_loss,
            ),
            100,
        )
    s(
        "softmax-before-cross-entropy",
        STUCK + TOO_SMALL + VANISHING,
        lambda: r.fit(
            nn.Sequential(n.stack([16, 64, 64, 20]), nn.Softmax(1)),
            d.tabular(classes=20),
            r.opt("SGD", 0.01),
            steps=450,
        ),
        100,
        False,
    )
    s(
        "tabular-all-zero",
        SYMMETRIC,
        lambda: r.fit(m.constant(n.stack([16, 64, 64, 6]), 0.0), d.tabular(), r.opt("SGD", 0.1)),
        100,
        True,
    )
    s(
        "waves-all-constant",
        SYMMETRIC,
        lambda: r.fit(m.constant(n.stack([1, 64, 64, 1], nn.Tanh), 0.1), d.waves(), r.opt("Adam", 0.001), F.mse_loss),
        50,
        True,
    )
    s(
        "shapes-conv-constant",
        SYMMETRIC,
        lambda: r.fit(m.constant(n.conv_plain(), 0.02), d.images(), r.opt("Adam", 0.001)),
        100,
        True,
    )
    s(
        "multilabel-second-constant",
        SYMMETRIC,
        lambda: r.fit(
            m.constant(n.stack([20, 64, 64, 8], nn.GELU), 0.05, only=1),
            d.multi_label(),
            r.opt("Adam", 0.001),
            F.binary_cross_entropy_with_logits,
        ),
        100,
        True,
    )
    for g in (0.25, 0.1):
        s(
            f"pixels-fcn-gain-{g}",
            VANISHING,
            lambda g=g: r.fit(n.gain(m.flat_convolutions(), g), d.masks(), r.opt("SGD", 0.05), batch=16),
            100,
            True,
        )
        s(
            f"tabular-relu-8-layers-gain-{g * 2}",
            DRIFT,
            lambda g=g: r.fit(n.gain(n.stack([16] + [64] * 8 + [6]), 2 * g), d.tabular(), r.opt("SGD", 0.05)),
            50,
            True,
        )
    s(
        "text-charmlp-sigmoid-8-layers",
        VANISHING,
        lambda: r.fit(
            n.CharMLP(d.LETTERS, 6, [64] * 8, nn.Sigmoid), d.characters(8000), r.opt("Adam", 0.0001), steps=400
        ),
        100,
        True,
    )
    for g in (2.5, 4.0):
        s(
            f"autoencoder-relu-8-gain-{g:g}",
            (*EXPLODING, "initial_loss"),
            lambda g=g: r.fit(
                n.gain(n.stack([24] + [64] * 8 + [24]), g), d.low_rank(), r.opt("Adam", 0.001), F.mse_loss
            ),
        )
        s(
            f"tabular-leaky-8-gain-{g:g}",
            EXPLODING,
            lambda g=g: r.fit(
                n.gain(n.stack([16] + [64] * 8 + [6], nn.LeakyReLU), g, head=0.001), d.tabular(), r.opt("SGD", 0.0001)
            ),
            50,
        )
    s(
        "softmax-twice-deep",
        STUCK + TOO_SMALL + VANISHING,
        lambda: r.fit(nn.Sequential(n.conv_plain(), nn.Softmax(1)), d.images(), r.opt("SGD", 0.001), steps=450),
        100,
    )
    s(
        "regression-constant-weights",
        SYMMETRIC,
        lambda: r.fit(
            m.constant(n.stack([10, 64, 64, 1]), 0.05),
            (lambda t: (t[0], (t[1] - 200) / 50))(d.house_prices()),
            r.opt("SGD", 0.01),
            F.mse_loss,
        ),
        100,
        True,
    )
    s(
        "encoder-ffn-constant",
        SYMMETRIC,
        lambda: r.fit(m.constant_feed_forward(), d.reverse(), r.opt("Adam", 0.001), r.sequence_loss),
        50,
        True,
    )
    return s.cases
