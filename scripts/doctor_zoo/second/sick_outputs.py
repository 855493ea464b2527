"""Networks whose outputs or activations are wrong before the first step."""

import torch.nn.functional as F
from torch import nn

from doctor_zoo.case import Case
from doctor_zoo.second import data as d
from doctor_zoo.second import mistakes as m
from doctor_zoo.second import networks as n
from doctor_zoo.second import recipe as r
from doctor_zoo.sick import DEAD, HEAD, SATURATED


def sick_outputs() -> list[Case]:
    """Return the runs."""
    s = r.Cases()
    for k in (10, 30):
        s(
            f"tabular-gelu-head-x{k}",
            HEAD,
            lambda k=k: r.fit(
                n.head_times(n.stack([16, 64, 64, 6], nn.GELU), k * 2), d.tabular(), r.opt("Adam", 0.001)
            ),
        )
        s(
            f"text-gru-head-x{k}",
            HEAD,
            lambda k=k: r.fit(
                n.head_times(n.Recurrent(nn.GRU, d.LETTERS, d.LETTERS), k * 2),
                d.text(),
                r.opt("Adam", 0.003),
                r.sequence_loss,
            ),
            50,
        )
        s(
            f"shapes-resnet-head-x{k}",
            HEAD,
            lambda k=k: r.fit(n.head_times(n.SmallResNet(), k), d.images(), r.opt("AdamW", 0.003)),
            10,
        )
    s(
        "text-encoder-tied-std-1",
        HEAD,
        lambda: r.fit(m.std_one_tied(), d.text(), r.opt("AdamW", 0.002), r.sequence_loss),
    )
    s(
        "text-charmlp-std-1",
        ("overconfident_output", "initial_loss", "saturated_activation"),
        lambda: r.fit(m.std_one(n.CharMLP(d.LETTERS, 6, [128])), d.characters(), r.opt("SGD", 0.1)),
    )
    s(
        "tabular-tanh-deep-std-1",
        ("saturated_activation", "overconfident_output", "initial_loss"),
        lambda: r.fit(m.std_one(n.stack([16, 64, 64, 64, 6], nn.Tanh)), d.tabular(), r.opt("Adam", 0.001)),
        50,
    )
    for g in (3, 8):
        s(
            f"spirals-tanh-gain-{g * 2}",
            SATURATED,
            lambda g=g: r.fit(
                n.gain(n.stack([2, 64, 64, 64, 64, 3], nn.Tanh), 2.0 * g, head=0.3), d.spirals(), r.opt("SGD", 0.05)
            ),
        )
        s(
            f"tabular-hardtanh-gain-{g}",
            SATURATED,
            lambda g=g: r.fit(
                n.gain(n.stack([16, 64, 64, 6], nn.Hardtanh), g, head=0.3), d.tabular(), r.opt("Adam", 0.001)
            ),
            50,
        )
    s(
        "tabular-tanh-inputs-x255",
        SATURATED,
        lambda: r.fit(
            n.stack([16, 64, 64, 6], nn.Tanh), (lambda t: (t[0] * 255, t[1]))(d.tabular()), r.opt("Adam", 0.001)
        ),
    )
    s(
        "tabular-sigmoid-inputs-x1000",
        SATURATED,
        lambda: r.fit(
            n.stack([16, 64, 6], nn.Sigmoid), (lambda t: (t[0] * 1000, t[1]))(d.tabular()), r.opt("SGD", 0.1)
        ),
    )
    s(
        "tabular-relu-inputs-x1000",
        HEAD,
        lambda: r.fit(n.stack([16, 64, 64, 6]), (lambda t: (t[0] * 1000, t[1]))(d.tabular()), r.opt("SGD", 0.01)),
        50,
    )
    for b in (-3.0, -8.0):
        s(
            f"tabular-relu-bias{b:g}",
            DEAD,
            lambda b=b: r.fit(m.with_bias(n.stack([16, 64, 64, 6]), 2, b), d.tabular(), r.opt("SGD", 0.05)),
            100,
            True,
        )
        s(
            f"shapes-conv-bias{b:g}",
            DEAD,
            lambda b=b: r.fit(m.with_bias(n.conv_plain(), 2, b), d.images(), r.opt("Adam", 0.001)),
            50,
            True,
        )
    s(
        "tabular-kaiming-all-layers",
        HEAD,
        lambda: r.fit(m.kaiming(n.stack([16, 64, 64, 6])), d.tabular(), r.opt("SGD", 0.02), steps=400),
        50,
    )
    for k in (10, 30):
        s(
            f"pulses-conv1d-head-x{k}",
            HEAD,
            lambda k=k: r.fit(n.head_times(n.conv1d(nn.ReLU), k * 3), d.pulses(), r.opt("Adam", 0.001)),
        )
        s(
            f"text-charmlp-head-x{k}",
            HEAD,
            lambda k=k: r.fit(
                n.head_times(n.CharMLP(d.LETTERS, 6, [128], nn.ReLU), k * 1.5), d.characters(), r.opt("SGD", 0.1)
            ),
            50,
        )
        s(
            f"mixer-head-x{k}",
            HEAD,
            lambda k=k: r.fit(n.head_times(n.Mixer(), k * 1.5), d.images(), r.opt("AdamW", 0.003)),
        )
    s(
        "encoder-std-1-all",
        ("overconfident_output", "initial_loss", "exploding_gradient", "activation_scale_drift"),
        lambda: r.fit(m.std_one(n.Encoder(d.LETTERS, causal=True)), d.text(), r.opt("AdamW", 0.001), r.sequence_loss),
    )
    s(
        "multilabel-bias-minus-6",
        HEAD,
        lambda: r.fit(
            m.with_bias(n.stack([20, 64, 8]), 2, -6.0),
            d.multi_label(),
            r.opt("SGD", 0.05),
            F.binary_cross_entropy_with_logits,
        ),
    )
    for g in (4, 10):
        s(
            f"text-charmlp-tanh-gain-{g}",
            SATURATED,
            lambda g=g: r.fit(
                n.gain(n.CharMLP(d.LETTERS, 6, [100, 100]), g, head=0.1), d.characters(), r.opt("SGD", 0.1)
            ),
        )
        s(
            f"autoencoder-sigmoid-gain-{g * 3}",
            SATURATED,
            lambda g=g: r.fit(
                n.gain(n.stack([24, 48, 48, 24], nn.Sigmoid), 3 * g, head=0.3),
                d.low_rank(),
                r.opt("Adam", 0.001),
                F.mse_loss,
            ),
            50,
        )
    for b in (-4.0, -10.0):
        s(
            f"waves-relu-bias{b:g}",
            DEAD,
            lambda b=b: r.fit(m.with_bias(n.stack([1, 64, 64, 1]), 2, b), d.waves(), r.opt("SGD", 0.05), F.mse_loss),
            100,
            True,
        )
        s(
            f"pulses-conv1d-bias{b:g}",
            DEAD,
            lambda b=b: r.fit(m.with_bias(n.conv1d(nn.ReLU), 2, b), d.pulses(), r.opt("Adam", 0.0001)),
            50,
            True,
        )
    return s.cases
