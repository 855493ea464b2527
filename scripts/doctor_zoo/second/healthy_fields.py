"""Networks over images, sequences and sets that train well."""

from functools import partial

import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import StepLR

from doctor_zoo.case import Case
from doctor_zoo.second import data as d
from doctor_zoo.second import mistakes as m
from doctor_zoo.second import networks as n
from doctor_zoo.second import recipe as r


def healthy_fields() -> list[Case]:
    """Return the runs."""
    h = r.Cases()
    h(
        "healthy/shapes-resnet-sgd-cosine",
        lambda: r.fit(
            n.SmallResNet(),
            d.images(),
            r.opt("SGD", 0.05, momentum=0.9, weight_decay=0.0005),
            steps=300,
            sched=r.cosine(300),
            val=0.2,
        ),
        50,
    )
    h(
        "healthy/shapes-resnet-zero-gamma",
        lambda: r.fit(n.SmallResNet(zero=True), d.images(), r.opt("AdamW", 0.003), steps=300),
    )
    h(
        "healthy/shapes-resnet-groupnorm",
        lambda: r.fit(n.SmallResNet(r.GROUPS), d.images(), r.opt("AdamW", 0.003), steps=300, batch=16),
    )
    h(
        "healthy/shapes-depthwise-hardswish",
        lambda: r.fit(n.depthwise(), d.images(), r.opt("AdamW", 0.005), steps=400, val=0.2),
    )
    h("healthy/shapes-conv-elu", lambda: r.fit(n.conv_plain(nn.ELU), d.images(), r.opt("Adam", 0.002), steps=400), 10)
    h(
        "healthy/shapes-conv-dropout",
        lambda: r.fit(n.conv_plain(nn.ReLU, drop=0.4), d.images(), r.opt("Adam", 0.003), steps=500, val=0.2),
    )
    h(
        "healthy/shapes-conv-instancenorm",
        lambda: r.fit(
            n.conv_plain(nn.LeakyReLU, partial(nn.InstanceNorm2d, affine=True)),
            d.images(),
            r.opt("Adam", 0.003),
            steps=400,
        ),
    )
    h(
        "healthy/shapes-conv-relu6-rmsprop",
        lambda: r.fit(n.conv_plain(nn.ReLU6, nn.BatchNorm2d), d.images(), r.opt("RMSprop", 0.001), steps=400),
        50,
    )
    h(
        "healthy/shapes-mixer",
        lambda: r.fit(n.Mixer(), d.images(), r.opt("AdamW", 0.003), steps=500, sched=r.warm_up(50)),
    )
    h("healthy/pixels-unet", lambda: r.fit(n.UNet(), d.masks(), r.opt("Adam", 0.005), steps=200, batch=16, val=0.2))
    h(
        "healthy/pixels-unet-groupnorm-sgd",
        lambda: r.fit(n.UNet(norm=r.GROUPS), d.masks(), r.opt("SGD", 0.1, momentum=0.9), steps=300, batch=8),
        50,
    )
    h(
        "healthy/bottleneck-tanh",
        lambda: r.fit(
            n.stack([24, 32, 4, 32, 24], nn.Tanh), d.low_rank(), r.opt("Adam", 0.003), F.mse_loss, steps=800, val=0.1
        ),
    )
    h(
        "healthy/autoencoder-relu-sgd",
        lambda: r.fit(
            n.stack([24, 64, 8, 64, 24]), d.low_rank(), r.opt("SGD", 0.3, momentum=0.9), F.mse_loss, steps=800
        ),
        10,
    )
    h("healthy/vae-silu", lambda: r.fit(n.VAE(), d.low_rank(), r.opt("Adam", 0.002), r.vae_loss, steps=600))
    h(
        "healthy/contrastive-b64",
        lambda: r.fit(n.TwoViews(), d.tabular(), r.opt("Adam", 0.001), r.contrastive_loss, batch=64, steps=400),
        50,
    )
    h(
        "healthy/reverse-encoder-adamw-warmup",
        lambda: r.fit(
            n.Encoder(8), d.reverse(), r.opt("AdamW", 0.003), r.sequence_loss, steps=500, sched=r.warm_up(50)
        ),
    )
    h(
        "healthy/reverse-encoder-postnorm-relu",
        lambda: r.fit(
            n.Encoder(8, norm_first=False, act="relu", drop=0.1),
            d.reverse(),
            r.opt("Adam", 0.001),
            r.sequence_loss,
            steps=600,
            val=0.1,
        ),
        50,
    )
    h(
        "healthy/text-encoder-causal-onecycle",
        lambda: r.fit(
            n.Encoder(d.LETTERS, causal=True),
            d.text(),
            r.opt("AdamW", 0.003),
            r.sequence_loss,
            steps=400,
            sched=r.one_cycle(0.003, 400),
            val=0.1,
        ),
    )
    h(
        "healthy/text-encoder-tied",
        lambda: r.fit(
            n.Encoder(d.LETTERS, causal=True, tied=True),
            d.text(),
            r.opt("AdamW", 0.002, weight_decay=0.1),
            r.sequence_loss,
            steps=400,
            trainer={"gradient_clip_val": 1.0},
        ),
    )
    h(
        "healthy/text-gru-clip",
        lambda: r.fit(
            n.Recurrent(nn.GRU, d.LETTERS, d.LETTERS),
            d.text(),
            r.opt("Adam", 0.003),
            r.sequence_loss,
            steps=400,
            trainer={"gradient_clip_val": 1.0},
        ),
        50,
    )
    h(
        "healthy/text-lstm-2-layers",
        lambda: r.fit(
            n.Recurrent(nn.LSTM, d.LETTERS, d.LETTERS, layers=2),
            d.text(),
            r.opt("AdamW", 0.005),
            r.sequence_loss,
            steps=500,
            val=0.1,
        ),
    )
    h(
        "healthy/text-rnn-tanh-sgd",
        lambda: r.fit(
            n.Recurrent(nn.RNN, d.LETTERS, d.LETTERS),
            d.text(),
            r.opt("SGD", 0.5),
            r.sequence_loss,
            steps=600,
            trainer={"gradient_clip_val": 1.0},
        ),
        10,
    )
    h(
        "healthy/text-charmlp-tanh",
        lambda: r.fit(
            n.gain(n.CharMLP(d.LETTERS, 6, [128]), 5 / 3, head=0.1),
            d.characters(),
            r.opt("SGD", 0.1),
            steps=1500,
            sched=lambda o: StepLR(o, 1000, 0.1),
        ),
    )
    h(
        "healthy/text-charmlp-batchnorm",
        lambda: r.fit(
            n.CharMLP(d.LETTERS, 6, [100, 100], nn.Tanh, nn.BatchNorm1d), d.characters(), r.opt("SGD", 0.1), steps=800
        ),
        50,
    )
    h(
        "healthy/series-gru-next",
        lambda: r.fit(
            n.Recurrent(nn.GRU, None, 1, hidden=24),
            d.time_series(),
            r.opt("Adam", 0.005),
            F.mse_loss,
            steps=400,
            val=0.1,
        ),
    )
    h(
        "healthy/series-lstm-next-accumulate",
        lambda: r.fit(
            n.Recurrent(nn.LSTM, None, 1, hidden=24),
            d.time_series(),
            r.opt("Adam", 0.01),
            F.mse_loss,
            steps=300,
            trainer={"accumulate_grad_batches": 2},
        ),
        10,
    )
    h("healthy/pulses-conv1d-elu", lambda: r.fit(n.conv1d(), d.pulses(), r.opt("Adam", 0.002), steps=400, val=0.2))
    h(
        "healthy/pulses-conv1d-relu-long",
        lambda: r.fit(n.conv1d(nn.ReLU), d.pulses(), r.opt("SGD", 0.05, momentum=0.9), steps=2000),
    )
    h("healthy/bags-embeddingbag", lambda: r.fit(n.Bag(), d.bags(), r.opt("Adam", 0.005), steps=400, val=0.2))
    h("healthy/reverse-encoder-60-examples", m.sixty_examples)
    return h.cases
