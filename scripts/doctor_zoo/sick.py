"""Networks with one known sickness each, every rule at two strengths or more, each labelled with its true causes."""

import math
from collections.abc import Callable, Iterable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import LambdaLR

from doctor_zoo import data as d
from doctor_zoo import networks as n
from doctor_zoo import tasks as t
from doctor_zoo.case import Case, Run

TANH = 5 / 3
RELU = 2**0.5
DEEP = (100,) * 5
Sick = tuple[str, Callable[[], Run]]

HEAD = ("initial_loss", "overconfident_output")
SATURATED = ("saturated_activation",)
DEAD = ("dead_units",)
DRIFT = ("activation_scale_drift", "vanishing_gradient")
# Through time it shows as spikes of the norm (Pascanu et al. 2013, 1211.5063), with the same cure: clipping.
EXPLODING = ("exploding_gradient", "activation_scale_drift", "gradient_spikes")
VANISHING = ("vanishing_gradient", "activation_scale_drift")
SPIKES = ("gradient_spikes",)
NON_FINITE = ("non_finite",)
TOO_LARGE = ("updates_too_large", "loss_diverging")
BLOWN_UP = ("updates_too_large", "loss_diverging", "non_finite")
TOO_SMALL = ("updates_too_small", "loss_not_decreasing")
IMBALANCE = ("update_imbalance",)
FROZEN = ("frozen_parameter",)
STUCK = ("loss_not_decreasing",)
DIVERGING = ("loss_diverging", "updates_too_large", "non_finite")
OVERFITTING = ("overfitting",)
SMALL_BATCH = ("batch_too_small_for_batchnorm", "batchnorm_momentum_noise")
MISMATCH = ("batchnorm_statistics_mismatch",)
MOMENTUM = ("batchnorm_momentum_noise", "batchnorm_statistics_mismatch")
BIAS = ("redundant_bias",)
SYMMETRIC = ("symmetric_init",)


def sick_cases() -> list[Case]:
    """Return all sick runs."""
    groups: list[tuple[tuple[str, ...], bool, Iterable[Sick]]] = [
        (HEAD, False, _heads()),
        (SATURATED, False, _saturated()),
        (DEAD, True, _dead()),
        (DRIFT, False, _shrinking()),
        (EXPLODING, False, _exploding()),
        (VANISHING, True, _vanishing()),
        (SPIKES, False, _spikes()),
        (NON_FINITE, True, _non_finite()),
        (TOO_LARGE, False, _updates_too_large()),
        (BLOWN_UP, True, _blown_up()),
        (TOO_SMALL, False, _updates_too_small()),
        (IMBALANCE, False, _imbalanced()),
        (FROZEN, True, _frozen()),
        (STUCK, True, _stuck()),
        (DIVERGING, True, _diverging()),
        (OVERFITTING, False, _overfitting()),
        (SMALL_BATCH, False, _small_batches()),
        (MISMATCH, False, _mismatched()),
        (MOMENTUM, False, _momentum()),
        (BIAS, False, _biases()),
        (SYMMETRIC, True, _symmetric()),
    ]
    labelled = [(causes, critical, sick) for causes, critical, cases in groups for sick in cases]
    return [
        Case(f"{causes[0]}/{name}", make, causes, critical, seed=1000 + i)
        for i, (causes, critical, (name, make)) in enumerate(labelled)
    ]


def _names(net: nn.Module, optimizer: t.MakeOptimizer, **more: object) -> Run:
    return t.fit(net, d.name_windows(), optimizer, **more)  # type: ignore[arg-type]


def _chars(net: nn.Module, optimizer: t.MakeOptimizer, **more: object) -> Run:
    return t.fit(net, d.name_sequences(), optimizer, t.sequence_loss, **more)  # type: ignore[arg-type]


def _digits(net: nn.Module, optimizer: t.MakeOptimizer, **more: object) -> Run:
    return t.fit(net, d.digits(), optimizer, **more)  # type: ignore[arg-type]


def _blobs(net: nn.Module, optimizer: t.MakeOptimizer, **more: object) -> Run:
    return t.fit(net, d.blobs(), optimizer, **more)  # type: ignore[arg-type]


def _lstm(hidden: int = 48) -> nn.Module:
    return n.CharRNN(nn.LSTM(24, hidden, batch_first=True), hidden)


def _heads() -> Iterable[Sick]:
    def offset_binary(bias: float) -> Run:
        net = n.mlp([12, 64, 64, 1])
        nn.init.constant_(net[-1].bias, bias)
        return t.fit(net, d.binary(), t.adamw(1e-3), F.binary_cross_entropy_with_logits)

    for factor in (10, 30):
        times = partial(n.with_head, factor=factor)
        yield f"names-tanh-x{factor}", lambda f=factor: _names(n.with_gain(n.name_mlp(), TANH, head=f), t.sgd(0.03))
        yield f"digits-relu-x{factor}", lambda w=times: _digits(w(n.mlp([64, 100, 100, 10])), t.adamw(1e-3))
        yield f"conv-x{factor}", lambda w=times: _digits(w(n.convnet()), t.adamw(1e-3))
        yield f"transformer-x{factor * 5}", lambda f=factor: _chars(n.with_head(n.Transformer(), f * 5), t.adamw(1e-3))
        yield f"lstm-x{factor * 3}", lambda f=factor: _chars(n.with_head(_lstm(), f * 3), t.adamw(1e-3))
    for bias in (3.0, 8.0):
        yield f"binary-bias-{bias:g}", lambda b=bias: offset_binary(b)
    for factor in (5, 20):
        yield (
            f"regression-x{factor}",
            lambda f=factor: t.fit(
                n.with_gain(n.mlp([6, 64, 64, 1]), RELU, head=f), d.regression(), t.adamw(1e-3), F.mse_loss
            ),
        )


def _saturated() -> Iterable[Sick]:
    def cell(gain: float) -> nn.Module:
        rnn = n.TanhCell(24, 48)
        with torch.no_grad():
            rnn.weight_x *= gain
            rnn.weight_h *= gain
        return n.CharRNN(rnn, 48)

    for gain in (5.0, 10.0):
        yield f"names-tanh-gain-{gain:g}", lambda g=gain: _names(n.with_gain(n.name_mlp(), g), t.sgd(0.1))
        yield f"names-tanh-deep-gain-{gain:g}", lambda g=gain: _names(n.with_gain(n.name_mlp(DEEP), g), t.sgd(0.03))
        yield f"own-cell-gain-{gain:g}", lambda g=gain: _chars(cell(g), t.adamw(2e-3))
        yield (
            f"sigmoid-gain-{gain * 3:g}",
            lambda g=gain: _digits(n.with_gain(n.mlp([64, 64, 64, 10], nn.Sigmoid), 3 * g), t.adamw(1e-3)),
        )
        yield (
            f"unscaled-inputs-tanh-x{gain * 5:g}",
            lambda g=gain: t.fit(
                n.with_gain(n.mlp([20, 64, 64, 10], nn.Tanh), TANH), d.blobs(scale=5 * g), t.adamw(1e-3)
            ),
        )


def _dead() -> Iterable[Sick]:
    def biased(net: nn.Module, bias: float) -> nn.Module:
        nn.init.constant_(n.linears(net)[1].bias, bias)
        return net

    def conv(bias: float) -> nn.Module:
        net = n.convnet(norm=None)
        nn.init.constant_(net[2].bias, bias)
        return net

    for bias in (-2.0, -5.0):
        yield f"digits-bias{bias:g}", lambda b=bias: _digits(biased(n.mlp([64, 100, 100, 10]), b), t.sgd(0.05))
        yield f"names-bias{bias:g}", lambda b=bias: _names(biased(n.name_mlp(activation=nn.ReLU), b), t.adamw(5e-4))
        yield f"conv-bias{bias:g}", lambda b=bias: _digits(conv(b), t.adamw(1e-3))


def _shrinking() -> Iterable[Sick]:
    for gain in (0.3, 0.5):
        yield f"names-tanh-gain-{gain}", lambda g=gain: _names(n.with_gain(n.name_mlp(DEEP), g), t.sgd(0.1))
        yield (
            f"digits-relu-gain-{gain}",
            lambda g=gain: _digits(n.with_gain(n.mlp([64, *DEEP, 10]), g), t.adamw(1e-3)),
        )
    yield "digits-relu-torch-init-12-layers", lambda: _digits(n.mlp([64, *[64] * 12, 10]), t.sgd(0.05))
    yield "digits-gelu-gain-0.4", lambda: _digits(n.with_gain(n.mlp([64, *DEEP, 10], nn.GELU), 0.4), t.sgd(0.1))


def _exploding() -> Iterable[Sick]:
    def cell(gain: float) -> nn.Module:
        rnn = nn.RNN(1, 32, batch_first=True, nonlinearity="relu")
        nn.init.orthogonal_(rnn.weight_hh_l0, gain)
        return n.SeriesRNN(rnn, 32)

    for gain in (1.7, 1.9):  # per step of time, less the half that relu takes: over 30 steps 250 and 7,000
        yield f"series-relu-cell-gain-{gain}", lambda g=gain: t.fit(cell(g), d.series(), t.adamw(1e-3))
    for gain in (3.0, 5.0):
        yield (
            f"digits-relu-gain-{gain:g}",
            lambda g=gain: _digits(n.with_gain(n.mlp([64, *DEEP, 10]), g, head=1e-3), t.sgd(1e-3)),
        )
        yield (
            f"digits-leakyrelu-gain-{gain:g}",
            lambda g=gain: _digits(n.with_gain(n.mlp([64, *DEEP, 10], nn.LeakyReLU), g, head=1e-3), t.adamw(1e-3)),
        )


def _vanishing() -> Iterable[Sick]:
    for depth in (5, 8):
        yield (
            f"digits-sigmoid-{depth}-layers",
            lambda k=depth: _digits(n.mlp([64, *[64] * k, 10], nn.Sigmoid), t.sgd(0.1)),
        )
        yield (
            f"names-sigmoid-{depth}-layers",
            lambda k=depth: _names(n.name_mlp((64,) * k, nn.Sigmoid), t.sgd(0.1, 0.9)),
        )
    for gain in (0.1, 0.2):
        yield (
            f"digits-tanh-gain-{gain}",
            lambda g=gain: _digits(n.with_gain(n.mlp([64, *DEEP, 10], nn.Tanh), g), t.sgd(0.1)),
        )


def _spikes() -> Iterable[Sick]:
    for factor in (100.0, 1000.0):
        yield (
            f"regression-rare-targets-x{factor:g}",
            lambda f=factor: t.fit(
                n.mlp([6, 64, 64, 1]), d.with_rare(d.regression(), 400, f, 1), t.sgd(1e-3), F.mse_loss
            ),
        )
        yield (
            f"regression-gelu-rare-inputs-x{factor:g}",
            lambda f=factor: t.fit(
                n.mlp([6, 64, 64, 1], nn.GELU), d.with_rare(d.regression(), 400, f), t.adamw(1e-3), F.mse_loss
            ),
        )
        yield (
            f"conv-rare-inputs-x{factor:g}",
            lambda f=factor: t.fit(n.convnet(norm=None), d.with_rare(d.digits(), 500, f), t.adamw(2e-3)),
        )


def _non_finite() -> Iterable[Sick]:
    def log_of_zero(logits: Tensor, y: Tensor) -> Tensor:
        return -(F.one_hot(y, logits.shape[1]) * logits.softmax(1).log()).sum(1).mean()

    def distances(points: Tensor) -> Tensor:  # of a point to itself the root has an infinite slope
        return (points[:, None] - points[None]).square().sum(-1).sqrt()

    def of_distances(out: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(distances(out), distances(y))

    def with_inf(data: d.Data, how_many: int, value: float) -> d.Data:
        data.train.tensors[0][-how_many:, 0] = value
        return data

    for factor in (20, 100):
        net = partial(n.mlp, [20, 64, 64, 10])
        yield (
            f"log-of-zero-x{factor}",
            lambda f=factor, m=net: t.fit(n.with_head(m(), f * 10), d.blobs(), t.sgd(0.1), log_of_zero),
        )
    yield "root-of-zero", lambda: t.fit(n.mlp([6, 64, 3]), d.regression(), t.adamw(1e-3), of_distances)
    yield "one-inf-input", lambda: t.fit(n.mlp([20, 64, 10]), with_inf(d.blobs(), 1, math.inf), t.adamw(1e-3))
    yield "nan-inputs", lambda: t.fit(n.mlp([20, 64, 10], nn.Tanh), with_inf(d.blobs(), 5, math.nan), t.sgd(0.1))
    yield (
        "one-inf-target",
        lambda: t.fit(
            n.mlp([6, 64, 1]),
            d.Data(with_inf_target(d.regression().train), d.regression().val),
            t.sgd(0.05),
            F.mse_loss,
        ),
    )


def with_inf_target(part: torch.utils.data.TensorDataset) -> torch.utils.data.TensorDataset:
    """The same examples with one infinite target."""
    part.tensors[1][7] = math.inf
    return part


def _updates_too_large() -> Iterable[Sick]:
    yield "names-tanh-sgd-1", lambda: _names(n.with_gain(n.name_mlp(DEEP), TANH), t.sgd(1.0))
    yield "names-relu-adamw-0.03", lambda: _names(n.with_gain(n.name_mlp(DEEP, nn.ReLU), RELU), t.adamw(0.03))
    yield "names-relu-adamw-0.3", lambda: _names(n.with_gain(n.name_mlp(DEEP, nn.ReLU), RELU), t.adamw(0.3))
    yield "digits-relu-adamw-0.1", lambda: _digits(n.mlp([64, 100, 100, 10]), t.adamw(0.1))
    yield "transformer-adamw-0.05", lambda: _chars(n.Transformer(), t.adamw(0.05))
    yield "transformer-adamw-0.3", lambda: _chars(n.Transformer(), t.adamw(0.3))
    yield "lstm-adamw-0.3", lambda: _chars(_lstm(), t.adamw(0.3))
    yield "conv-plain-adamw-0.1", lambda: _digits(n.convnet(norm=None), t.adamw(0.1))
    yield "regression-adamw-0.3", lambda: t.fit(n.mlp([6, 64, 64, 1]), d.regression(), t.adamw(0.3), F.mse_loss)


def _blown_up() -> Iterable[Sick]:
    yield "names-tanh-sgd-5", lambda: _names(n.with_gain(n.name_mlp(DEEP), TANH), t.sgd(5.0))
    yield "digits-relu-sgd-3", lambda: _digits(n.mlp([64, 100, 100, 10]), t.sgd(3.0))
    yield "digits-relu-sgd-30", lambda: _digits(n.mlp([64, 100, 100, 10]), t.sgd(30.0))
    yield "regression-sgd-2", lambda: t.fit(n.mlp([6, 64, 64, 1]), d.regression(), t.sgd(2.0), F.mse_loss)
    yield "blobs-gelu-momentum-1", lambda: _blobs(n.mlp([20, 64, 64, 10], nn.GELU), t.sgd(1.0, 0.95))


def _updates_too_small() -> Iterable[Sick]:
    yield "names-tanh-sgd-1e-3", lambda: _names(n.with_gain(n.name_mlp(DEEP), TANH), t.sgd(1e-3))
    yield "names-tanh-sgd-1e-4", lambda: _names(n.with_gain(n.name_mlp(DEEP), TANH), t.sgd(1e-4))
    yield "digits-relu-adamw-1e-6", lambda: _digits(n.mlp([64, 100, 100, 10]), t.adamw(1e-6))
    yield "digits-relu-sgd-1e-4", lambda: _digits(n.mlp([64, 100, 100, 10]), t.sgd(1e-4))
    yield "conv-sgd-1e-4", lambda: _digits(n.convnet(norm=None), t.sgd(1e-4))
    yield "transformer-adamw-1e-7", lambda: _chars(n.Transformer(), t.adamw(1e-7))
    yield "lstm-sgd-1e-4", lambda: _chars(_lstm(), t.sgd(1e-4))
    yield "regression-adamw-1e-6", lambda: t.fit(n.mlp([6, 64, 64, 1]), d.regression(), t.adamw(1e-6), F.mse_loss)


def _imbalanced() -> Iterable[Sick]:
    def one_layer(
        net: nn.Module, index: int, factor: float, lr: float, kind: type[SGD] | type[AdamW], data: d.Data
    ) -> Run:
        return t.fit(net, data, t.with_own_lr(n.linears(net)[index], lr * factor, lr, kind))

    for factor in (0.01, 0.001):
        yield (
            f"names-tanh-layer-x{factor}",
            lambda f=factor: one_layer(n.with_gain(n.name_mlp(DEEP), TANH), 2, f, 0.1, SGD, d.name_windows()),
        )
        yield (
            f"digits-relu-layer-x{factor}",
            lambda f=factor: one_layer(n.mlp([64, 100, 100, 100, 10]), 1, f, 1e-3, AdamW, d.digits()),
        )
    for factor in (100, 300):
        yield (
            f"names-tanh-layer-x{factor}",
            lambda f=factor: one_layer(n.with_gain(n.name_mlp(DEEP), TANH), 2, f, 5e-3, SGD, d.name_windows()),
        )
        yield (
            f"blobs-gelu-layer-x{factor}",
            lambda f=factor: one_layer(n.mlp([20, 64, 64, 64, 10], nn.GELU), 1, f, 1e-4, AdamW, d.blobs()),
        )


class _Detached(nn.Module):
    """A network whose first part is cut from the loss by ``detach``."""

    def __init__(self, front: nn.Module, back: nn.Module) -> None:
        super().__init__()
        self.front = front
        self.back = back

    def forward(self, x: Tensor) -> Tensor:
        return self.back(self.front(x).detach())


class _Unused(nn.Module):
    """A network with a branch that the forward forgets."""

    def __init__(self, net: nn.Module, branch: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def _frozen() -> Iterable[Sick]:
    def forgotten(net: nn.Module, part: nn.Module, data: d.Data, loss: t.Loss = F.cross_entropy) -> Run:
        return t.fit(net, data, t.except_for(part.parameters(), lambda ps: AdamW(ps, lr=2e-3)), loss)

    def forgotten_layer() -> Run:
        net = n.mlp([64, 100, 100, 10])
        return forgotten(net, net[3], d.digits())

    def forgotten_conv() -> Run:
        net = n.convnet()
        return forgotten(net, net[3], d.digits())

    def forgotten_attention() -> Run:
        net = n.Transformer()
        return forgotten(net, net.blocks[0], d.name_sequences(), t.sequence_loss)

    def no_data_branch() -> Run:
        net = n.mlp([64, 100, 10])
        return _digits(_Unused(net, nn.Linear(64, 10)), t.adamw(1e-3))

    yield "layer-not-in-optimizer", forgotten_layer
    yield "conv-not-in-optimizer", forgotten_conv
    yield "block-not-in-optimizer", forgotten_attention
    yield "branch-not-used", no_data_branch
    yield (
        "detached-first-layer",
        lambda: _digits(
            _Detached(nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU()), nn.Linear(64, 10)), t.adamw(2e-3)
        ),
    )
    yield "detached-embedding-lstm", lambda: _chars(_DetachedChars(), t.adamw(5e-3))


class _DetachedChars(n.CharRNN):
    """An LSTM whose states are cut from the loss, so that only the output layer learns."""

    def __init__(self) -> None:
        super().__init__(nn.LSTM(24, 48, batch_first=True), 48)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(self.embedding(x))[0].detach())


def _stuck() -> Iterable[Sick]:
    class Zero(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.zeros_like(x)

    class Shuffle(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[torch.randperm(len(x))]

    yield (
        "random-labels-blobs",
        lambda: t.fit(n.mlp([20, 32, 10]), d.with_random_labels(d.blobs(8000), 10), t.sgd(0.05), steps=400),
    )
    yield (
        "random-labels-conv",
        lambda: t.fit(n.convnet(), d.with_random_labels(d.digits(8000), 10), t.sgd(0.05), steps=400),
    )
    yield (
        "zeroed-inputs-digits",
        lambda: t.fit(n.mlp([64, 100, 10]), d.with_input(d.digits(), Zero()), t.adamw(1e-3), steps=400),
    )
    yield (
        "inputs-shuffled-against-labels",
        lambda: t.fit(n.mlp([20, 64, 10], nn.Tanh), d.with_input(d.blobs(8000), Shuffle()), t.sgd(0.1), steps=400),
    )
    yield (
        "random-labels-series-gru",
        lambda: t.fit(
            n.SeriesRNN(nn.GRU(1, 16, batch_first=True), 16),
            d.with_random_labels(d.series(6000), 4),
            t.adamw(2e-3),
            steps=400,
        ),
    )


def _diverging() -> Iterable[Sick]:
    def rising(per_step: float) -> t.MakeSchedule:
        return lambda o: LambdaLR(o, lambda s: per_step**s)

    yield "rising-lr-digits", lambda: _digits(n.mlp([64, 100, 100, 10]), t.sgd(0.05), schedule=rising(1.025))
    yield "rising-lr-names", lambda: _names(n.with_gain(n.name_mlp(), TANH), t.sgd(0.1), schedule=rising(1.02))
    yield "ascent-digits", lambda: _digits(n.mlp([64, 100, 100, 10]), t.sgd(0.02, maximize=True))
    yield "ascent-transformer", lambda: _chars(n.Transformer(), t.adamw(1e-3, maximize=True))
    yield "momentum-0.99-names", lambda: _names(n.with_gain(n.name_mlp(DEEP), TANH), t.sgd(0.3, 0.99))
    yield "rising-lr-transformer", lambda: _chars(n.Transformer(), t.adamw(1e-3), schedule=rising(1.025))


def _overfitting() -> Iterable[Sick]:
    for examples in (64, 200):
        yield (
            f"digits-{examples}",
            lambda k=examples: t.fit(n.mlp([64, 200, 200, 10]), d.only(d.digits(noise=1.5), k), t.adamw(3e-3)),
        )
        yield (
            f"names-{examples * 3}",
            lambda k=examples: t.fit(
                n.name_mlp((200,), nn.ReLU), d.only(d.name_windows(), 3 * k), t.adamw(3e-3), check_val_every_n_epoch=2
            ),
        )
        yield (
            f"teacher-{examples}",
            lambda k=examples: t.fit(n.mlp([20, 200, 200, 5], nn.GELU), d.only(d.teacher(), k), t.adamw(3e-3)),
        )
    yield (
        "regression-100",
        lambda: t.fit(n.mlp([6, 200, 200, 1]), d.only(d.regression(), 100), t.adamw(3e-3), F.mse_loss, steps=400),
    )
    yield "conv-100", lambda: t.fit(n.convnet(), d.only(d.digits(noise=2.0), 100), t.adamw(3e-3))


def _small_batches() -> Iterable[Sick]:
    for batch in (2, 4):
        yield (
            f"names-tanh-b{batch}",
            lambda b=batch: _names(
                n.with_gain(n.name_mlp(DEEP, norm=nn.BatchNorm1d, bias=False), TANH), t.sgd(0.05), batch=b
            ),
        )
        yield (
            f"blobs-relu-b{batch}",
            lambda b=batch: _blobs(n.mlp([20, 64, 64, 10], norm=nn.BatchNorm1d, bias=False), t.adamw(1e-3), batch=b),
        )
        yield (
            f"regression-b{batch}",
            lambda b=batch: t.fit(
                n.mlp([6, 64, 64, 1], norm=nn.BatchNorm1d, bias=False),
                d.regression(),
                t.adamw(1e-3),
                F.mse_loss,
                batch=b,
            ),
        )


def _batch_norm(momentum: float) -> n.Make:
    return lambda features: nn.BatchNorm1d(features, momentum=momentum)


def _batch_norm_2d(momentum: float) -> n.Make:
    return lambda features: nn.BatchNorm2d(features, momentum=momentum)


def _mismatched() -> Iterable[Sick]:
    for momentum in (0.001, 0.003):
        yield (
            f"names-tanh-momentum-{momentum}",
            lambda m=momentum: _names(
                n.with_gain(n.name_mlp(DEEP, norm=_batch_norm(m), bias=False), TANH), t.sgd(0.1), val_check_interval=100
            ),
        )
        yield (
            f"conv-momentum-{momentum}",
            lambda m=momentum: _digits(n.convnet(_batch_norm_2d(m)), t.adamw(2e-3)),
        )
        yield (
            f"blobs-relu-momentum-{momentum}",
            lambda m=momentum: _blobs(n.mlp([20, 64, 64, 10], norm=_batch_norm(m), bias=False), t.adamw(2e-3)),
        )


def _momentum() -> Iterable[Sick]:
    for momentum, batch in ((0.9, 16), (0.5, 16), (0.9, 24)):
        yield (
            f"names-tanh-momentum-{momentum}-b{batch}",
            lambda m=momentum, b=batch: _names(
                n.with_gain(n.name_mlp(DEEP, norm=_batch_norm(m), bias=False), TANH), t.sgd(0.05), batch=b
            ),
        )
        yield (
            f"blobs-relu-momentum-{momentum}-b{batch}",
            lambda m=momentum, b=batch: _blobs(
                n.mlp([20, 64, 64, 10], norm=_batch_norm(m), bias=False), t.adamw(1e-3), batch=b
            ),
        )


def _biases() -> Iterable[Sick]:
    yield "names-tanh-batchnorm", lambda: _names(n.with_gain(n.name_mlp(DEEP, norm=nn.BatchNorm1d), TANH), t.sgd(0.1))
    yield "blobs-relu-batchnorm", lambda: _blobs(n.mlp([20, 64, 64, 10], norm=nn.BatchNorm1d), t.adamw(1e-3))
    yield "conv-batchnorm", lambda: _digits(n.convnet(bias=True), t.sgd(0.05))
    yield (
        "conv-instancenorm",
        lambda: _digits(
            n.convnet(partial(nn.InstanceNorm2d, affine=True), bias=True, channels=(24, 48, 48)), t.adamw(1e-2)
        ),
    )


def _symmetric() -> Iterable[Sick]:
    def constant(net: nn.Module, value: float) -> nn.Module:
        for layer in n.linears(net):
            nn.init.constant_(layer.weight, value)
            nn.init.zeros_(layer.bias)
        return net

    def one(net: nn.Module, index: int, value: float) -> nn.Module:
        nn.init.constant_(n.linears(net)[index].weight, value)
        return net

    def equal_filters() -> nn.Module:
        net = n.convnet()
        nn.init.constant_(net[3].weight, 0.01)
        return net

    yield "digits-all-zero", lambda: _digits(constant(n.mlp([64, 100, 100, 10]), 0.0), t.adamw(1e-3))
    yield "digits-all-constant", lambda: _digits(constant(n.mlp([64, 100, 100, 10]), 0.02), t.adamw(1e-3))
    yield "names-one-zero", lambda: _names(one(n.with_gain(n.name_mlp(DEEP), TANH), 2, 0.0), t.sgd(0.1))
    yield "names-one-constant", lambda: _names(one(n.with_gain(n.name_mlp(DEEP), TANH), 2, 0.05), t.sgd(0.1))
    yield "conv-equal-filters", lambda: _digits(equal_filters(), t.sgd(0.1))
    yield "blobs-all-constant-tanh", lambda: _blobs(constant(n.mlp([20, 64, 64, 10], nn.Tanh), 0.1), t.sgd(0.1))
