"""Networks that train well, the tricky ones among them: a doctor has nothing above a note to say about any."""

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam, RMSprop
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, OneCycleLR, StepLR

from doctor_zoo import data as d
from doctor_zoo import networks as n
from doctor_zoo import tasks as t
from doctor_zoo.case import Case, Run

TANH = 5 / 3
RELU = 2**0.5
GROUP_NORM = partial(nn.GroupNorm, 4)


def healthy_cases() -> list[Case]:
    """Return all healthy runs."""
    makes: dict[str, Callable[[], Run]] = {**_classifiers(), **_images(), **_sequences(), **_regressions(), **_tricky()}
    return [Case(f"healthy/{name}", make, seed=i) for i, (name, make) in enumerate(makes.items())]


def _classifiers() -> dict[str, Callable[[], Run]]:
    def names(net: nn.Module, optimizer: t.MakeOptimizer, batch: int = 32) -> Run:
        return t.fit(net, d.name_windows(), optimizer, batch=batch, steps=400)

    def blobs(net: nn.Module, optimizer: t.MakeOptimizer, batch: int = 32) -> Run:
        return t.fit(net, d.blobs(), optimizer, batch=batch)

    def teacher(net: nn.Module, optimizer: t.MakeOptimizer, batch: int = 32) -> Run:
        return t.fit(net, d.teacher(), optimizer, batch=batch)

    deep = (100,) * 5
    batch_norm, layer_norm = nn.BatchNorm1d, nn.LayerNorm
    return {
        "names-tanh-kaiming-sgd": lambda: names(n.with_gain(n.name_mlp(), TANH), t.sgd(0.1)),
        "names-tanh-deep-kaiming-sgd": lambda: names(n.with_gain(n.name_mlp(deep), TANH), t.sgd(0.1)),
        "names-tanh-deep-kaiming-adamw": lambda: names(n.with_gain(n.name_mlp(deep), TANH), t.adamw(1e-3)),
        "names-tanh-deep-batchnorm-sgd": lambda: names(
            n.with_gain(n.name_mlp(deep, norm=batch_norm, bias=False), TANH), t.sgd(0.1)
        ),
        "names-tanh-torch-sgd": lambda: names(n.name_mlp(), t.sgd(0.1)),
        "names-relu-deep-kaiming-sgd": lambda: names(n.with_gain(n.name_mlp(deep, nn.ReLU), RELU), t.sgd(0.1)),
        "names-relu-torch-adamw": lambda: names(n.name_mlp(activation=nn.ReLU), t.adamw(1e-3)),
        "names-gelu-layernorm-adamw": lambda: names(n.name_mlp(deep, nn.GELU, layer_norm), t.adamw(2e-3)),
        "names-silu-torch-adamw": lambda: names(n.name_mlp(activation=nn.SiLU), t.adamw(2e-3)),
        "names-bigram": lambda: names(n.name_mlp(()), t.adamw(1e-2)),
        "blobs-relu-torch-sgd": lambda: blobs(n.mlp([20, 64, 64, 10]), t.sgd(0.1)),
        "blobs-relu-torch-deep-adamw": lambda: blobs(n.mlp([20, 64, 64, 64, 64, 10]), t.adamw(1e-3)),
        "blobs-relu-torch-momentum": lambda: blobs(n.mlp([20, 64, 64, 10]), t.sgd(0.02, 0.9)),
        "blobs-relu-batchnorm-sgd": lambda: blobs(n.mlp([20, 64, 64, 10], norm=batch_norm), t.sgd(0.1), 64),
        "blobs-tanh-layernorm-adamw": lambda: blobs(n.mlp([20, 64, 64, 10], nn.Tanh, layer_norm), t.adamw(1e-3)),
        "blobs-sigmoid-adam": lambda: blobs(n.mlp([20, 64, 10], nn.Sigmoid), t.adamw(5e-3)),
        "blobs-leakyrelu-sgd": lambda: blobs(n.mlp([20, 64, 64, 10], nn.LeakyReLU), t.sgd(0.1)),
        "blobs-elu-rmsprop": lambda: blobs(
            n.mlp([20, 64, 64, 10], nn.ELU), lambda net: RMSprop(net.parameters(), lr=1e-3)
        ),
        "blobs-prelu-adamw": lambda: blobs(n.mlp([20, 64, 64, 10], nn.PReLU), t.adamw(2e-3)),
        "blobs-softmax-regression": lambda: blobs(n.mlp([20, 10]), t.sgd(0.1)),
        "blobs-dropout-adamw": lambda: blobs(n.mlp([20, 128, 128, 10], dropout=0.4), t.adamw(2e-3)),
        "blobs-weight-decay": lambda: blobs(n.mlp([20, 64, 64, 10]), t.sgd(0.1, 0.9, weight_decay=1e-3)),
        "teacher-tanh-kaiming-momentum": lambda: teacher(
            n.with_gain(n.mlp([20, 64, 64, 5], nn.Tanh), TANH), t.sgd(0.03, 0.9)
        ),
        "teacher-relu-torch-sgd": lambda: teacher(n.mlp([20, 64, 64, 64, 5]), t.sgd(0.2)),
        "teacher-gelu-adamw": lambda: teacher(n.mlp([20, 128, 128, 5], nn.GELU), t.adamw(2e-3), 64),
        "teacher-hardtanh-sgd": lambda: teacher(n.with_gain(n.mlp([20, 64, 64, 5], nn.Hardtanh), 1), t.sgd(0.1)),
        "teacher-relu6-batchnorm": lambda: teacher(
            n.mlp([20, 64, 64, 5], nn.ReLU6, batch_norm, bias=False), t.sgd(0.1)
        ),
        "teacher-softplus-adamw": lambda: teacher(n.mlp([20, 64, 64, 5], nn.Softplus), t.adamw(2e-3)),
        "teacher-residual-zero-init": lambda: teacher(n.ResidualMLP(20, 48, 3, 5, True), t.adamw(2e-3)),
        "teacher-residual-torch-init": lambda: teacher(n.ResidualMLP(20, 48, 4, 5, False), t.adamw(1e-3)),
    }


def _images() -> dict[str, Callable[[], Run]]:
    def digits(
        net: nn.Module, optimizer: t.MakeOptimizer, batch: int = 32, schedule: t.MakeSchedule | None = None
    ) -> Run:
        return t.fit(net, d.digits(), optimizer, batch=batch, schedule=schedule)

    return {
        "conv-relu-batchnorm-sgd": lambda: digits(n.convnet(), t.sgd(0.1)),
        "conv-relu-batchnorm-momentum-b16": lambda: digits(n.convnet(), t.sgd(0.02, 0.9), 16),
        "conv-relu-plain-adamw": lambda: digits(n.convnet(norm=None), t.adamw(3e-3)),
        "conv-gelu-groupnorm-adamw": lambda: digits(n.convnet(GROUP_NORM, nn.GELU), t.adamw(3e-3)),
        "conv-silu-batchnorm-adamw": lambda: digits(n.convnet(activation=nn.SiLU, bias=True), t.adamw(2e-3)),
        "conv-tanh-plain-sgd": lambda: digits(n.convnet(None, nn.Tanh), t.sgd(0.3)),
        "resnet-zero-gamma-momentum": lambda: digits(n.resnet(), t.sgd(0.05, 0.9)),
        "resnet-plain-gamma-adamw": lambda: digits(n.resnet(zero_init=False), t.adamw(2e-3)),
        "resnet-onecycle": lambda: digits(
            n.resnet(), t.sgd(0.1, 0.9), schedule=lambda o: OneCycleLR(o, 0.1, total_steps=300)
        ),
        "digits-mlp-relu-torch-adamw": lambda: digits(n.mlp([64, 100, 100, 10]), t.adamw(1e-3)),
        "digits-mlp-sigmoid-sgd": lambda: digits(n.mlp([64, 64, 10], nn.Sigmoid), t.sgd(0.5)),
    }


def _sequences() -> dict[str, Callable[[], Run]]:
    def chars(net: nn.Module, optimizer: t.MakeOptimizer, **more: object) -> Run:
        return t.fit(net, d.name_sequences(), optimizer, t.sequence_loss, **more)  # type: ignore[arg-type]

    def series(net: nn.Module, optimizer: t.MakeOptimizer, **more: object) -> Run:
        return t.fit(net, d.series(), optimizer, **more)  # type: ignore[arg-type]

    def warm_cosine(steps: int, warm: int) -> t.MakeSchedule:
        return lambda o: LambdaLR(o, lambda s: min((s + 1) / warm, 0.5 * (1 + math.cos(math.pi * s / steps))))

    return {
        "lstm-chars-adamw": lambda: chars(n.CharRNN(nn.LSTM(24, 48, batch_first=True), 48), t.adamw(5e-3)),
        "gru-chars-adamw": lambda: chars(n.CharRNN(nn.GRU(24, 48, batch_first=True), 48), t.adamw(5e-3)),
        "rnn-chars-clipped-sgd": lambda: chars(
            n.CharRNN(nn.RNN(24, 48, batch_first=True), 48), t.sgd(0.5), gradient_clip_val=1.0
        ),
        "lstm-two-layers-dropout": lambda: chars(
            n.CharRNN(nn.LSTM(24, 40, num_layers=2, dropout=0.2, batch_first=True), 40), t.adamw(5e-3), steps=200
        ),
        "own-tanh-cell-chars": lambda: chars(n.CharRNN(n.TanhCell(24, 48), 48), t.adamw(3e-3)),
        "lstm-series-adamw": lambda: series(
            n.SeriesRNN(nn.LSTM(1, 32, batch_first=True), 32), t.adamw(5e-3), gradient_clip_val=0.5
        ),
        "gru-series-adamw": lambda: series(
            n.SeriesRNN(nn.GRU(1, 32, batch_first=True), 32), t.adamw(3e-3), gradient_clip_val=0.5
        ),
        "transformer-warm-cosine": lambda: chars(
            n.Transformer(), t.adamw(5e-3), schedule=warm_cosine(300, 40), gradient_clip_val=1.0
        ),
        "transformer-constant": lambda: chars(n.Transformer(), t.adamw(2e-3)),
        "transformer-tied": lambda: chars(n.Transformer(tied=True), t.adamw(3e-3)),
        "transformer-torch-init": lambda: chars(n.Transformer(std=None), t.adamw(1e-3)),
        "transformer-relu-dropout": lambda: chars(n.Transformer(activation=nn.ReLU, dropout=0.1), t.adamw(3e-3)),
        "transformer-silu-four-blocks": lambda: chars(
            n.Transformer(blocks=4, activation=nn.SiLU), t.adamw(2e-3), steps=200
        ),
    }


def _regressions() -> dict[str, Callable[[], Run]]:
    def fit(net: nn.Module, data: d.Data, optimizer: t.MakeOptimizer, loss: t.Loss = F.mse_loss, **more: object) -> Run:
        return t.fit(net, data, optimizer, loss, **more)  # type: ignore[arg-type]

    return {
        "regression-relu-adamw": lambda: fit(n.mlp([6, 64, 64, 1]), d.regression(), t.adamw(2e-3)),
        "regression-tanh-sgd": lambda: fit(
            n.with_gain(n.mlp([6, 64, 64, 1], nn.Tanh), TANH), d.regression(), t.sgd(0.02, 0.9)
        ),
        "regression-gelu-layernorm": lambda: fit(
            n.mlp([6, 64, 64, 1], nn.GELU, nn.LayerNorm), d.regression(), t.adamw(2e-3)
        ),
        "regression-relu-batchnorm": lambda: fit(
            n.mlp([6, 64, 64, 1], norm=nn.BatchNorm1d), d.regression(), t.adamw(3e-3), batch=64
        ),
        "regression-offset-targets": lambda: fit(n.mlp([6, 64, 64, 1]), d.regression(offset=3.0), t.adamw(3e-3)),
        "regression-small-targets": lambda: fit(n.mlp([6, 64, 64, 1]), d.regression(scale=0.5), t.adamw(2e-3)),
        "regression-huber": lambda: fit(n.mlp([6, 64, 64, 1]), d.regression(), t.adamw(2e-3), F.huber_loss),
        "regression-l1": lambda: fit(n.mlp([6, 64, 64, 1]), d.regression(), t.adamw(5e-3), F.l1_loss, steps=600),
        "regression-linear": lambda: fit(n.mlp([6, 1]), d.regression(), t.sgd(0.05)),
    }


class _SigmoidAutoencoder(nn.Module):
    """Binary pixels through a bottleneck; the output sigmoid is meant to saturate."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 24))
        self.decoder = nn.Sequential(nn.Linear(24, 48), nn.ReLU(), nn.Linear(48, 64), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))


def _binary_pixels() -> d.Data:
    pictures = d.digits(noise=0.0)
    parts = [torch.utils.data.TensorDataset(x, x.flatten(1)) for x in ((p.tensors[0] > 0.3).float() for p in pictures)]
    return d.Data(*parts)


def _tricky() -> dict[str, Callable[[], Run]]:
    def fine_tuned(lr: float, optimizer: Callable[[float], t.MakeOptimizer] = t.adamw) -> Run:
        data = d.digits()
        return t.fit(t.pretrained(n.mlp([64, 100, 100, 10]), data), data, optimizer(lr))

    def continued_names() -> Run:
        data = d.name_windows()
        return t.fit(t.pretrained(n.name_mlp((100, 100)), data, 800), data, t.adamw(3e-4))

    def fine_tuned_conv() -> Run:
        data = d.digits()
        return t.fit(t.pretrained(n.convnet(), data), data, t.sgd(0.01, 0.9))

    def new_head_on_frozen() -> Run:
        net = t.pretrained(n.mlp([64, 100, 100, 10]), d.digits(), 400)
        net.requires_grad_(False)
        net[-1] = nn.Linear(100, 10)
        return t.fit(net, d.digits(), t.adamw(5e-3))

    def frozen_conv_backbone() -> Run:
        net = t.pretrained(n.convnet(), d.digits()).requires_grad_(False)
        net[-1] = nn.Linear(24, 10)
        return t.fit(net, d.digits(), t.adamw(1e-2))

    def frozen_embedding() -> Run:
        net = n.name_mlp((100,), nn.ReLU)
        net[0].weight.requires_grad_(False)
        return t.fit(net, d.name_windows(), t.adamw(2e-3))

    def lora() -> Run:
        net = t.pretrained(n.Transformer(), d.name_sequences(), 400, loss=t.sequence_loss).requires_grad_(False)
        for block in net.blocks:
            block.attention.qkv = n.LoRALinear(block.attention.qkv)
            block.mlp[0] = n.LoRALinear(block.mlp[0])
        return t.fit(net, d.name_sequences(), t.adamw(3e-3), t.sequence_loss)

    def lora_mlp() -> Run:
        data = d.digits()
        net = t.pretrained(n.mlp([64, 100, 100, 10]), data).requires_grad_(False)
        net[1], net[3] = n.LoRALinear(net[1]), n.LoRALinear(net[3])
        rolled = d.Data(*(torch.utils.data.TensorDataset(p.tensors[0].flip(3), p.tensors[1]) for p in data))
        return t.fit(net, rolled, t.adamw(3e-3))

    def gan() -> Run:
        angle = torch.rand(2500, 1) * 6.2832
        points = d.split(torch.cat([angle.cos(), angle.sin()], 1) + 0.05 * torch.randn(2500, 2), angle)
        return t.run(t.GAN(n.mlp([4, 48, 48, 2]), n.mlp([2, 48, 48, 1], nn.LeakyReLU)), points, batch=64)

    def scheduled(schedule: t.MakeSchedule, lr: float = 2e-3) -> Run:
        return t.fit(n.mlp([64, 100, 100, 10]), d.digits(), t.adamw(lr), schedule=schedule)

    def prior_bias_head() -> Run:
        net = n.mlp([12, 64, 64, 1])
        nn.init.constant_(net[-1].bias, -2.2)
        return t.fit(net, d.binary(positive=0.1), t.adamw(2e-3), F.binary_cross_entropy_with_logits)

    def labels_smoothed(logits: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(logits, y, label_smoothing=0.1)

    def log_probabilities() -> Run:
        net = nn.Sequential(*n.mlp([20, 64, 64, 10]), nn.LogSoftmax(1))
        return t.fit(net, d.blobs(), t.adamw(2e-3), F.nll_loss)

    def noisy_labels() -> Run:
        data = d.blobs()
        for part in data:
            flip = torch.rand(len(part)) < 0.4
            part.tensors[1][flip] = torch.randint(10, (int(flip.sum()),))
        return t.fit(n.mlp([20, 64, 64, 10]), data, t.adamw(1e-3))

    def imbalanced() -> Run:
        return t.fit(n.mlp([12, 64, 64, 1]), d.binary(positive=0.1), t.adamw(2e-3), F.binary_cross_entropy_with_logits)

    bce = F.binary_cross_entropy_with_logits
    return {
        "fine-tuned-mlp-adamw": lambda: fine_tuned(3e-4),
        "fine-tuned-mlp-small-lr": lambda: fine_tuned(5e-5),
        "fine-tuned-mlp-sgd": lambda: fine_tuned(0.01, t.sgd),
        "fine-tuned-conv": fine_tuned_conv,
        "fine-tuned-names-at-plateau": continued_names,
        "new-head-on-frozen-mlp": new_head_on_frozen,
        "new-head-on-frozen-conv": frozen_conv_backbone,
        "frozen-embedding": frozen_embedding,
        "lora-transformer": lora,
        "lora-mlp": lora_mlp,
        "gan": gan,
        "vae": lambda: t.run(t.Variational(), d.blobs()),
        "sigmoid-autoencoder": lambda: t.fit(
            _SigmoidAutoencoder(), _binary_pixels(), t.adamw(3e-3), F.binary_cross_entropy
        ),
        "autoencoder-tanh": lambda: t.fit(
            n.mlp([64, 48, 16, 48, 64], nn.Tanh),
            d.Data(*(torch.utils.data.TensorDataset(p.tensors[0], p.tensors[0].flatten(1)) for p in d.digits())),
            t.adamw(2e-3),
            F.mse_loss,
        ),
        "cosine-to-zero": lambda: scheduled(lambda o: CosineAnnealingLR(o, 300)),
        "cosine-to-zero-long": lambda: t.fit(
            n.name_mlp(), d.name_windows(), t.adamw(3e-3), schedule=lambda o: CosineAnnealingLR(o, 500), steps=500
        ),
        "long-warm-up": lambda: scheduled(lambda o: LambdaLR(o, lambda s: min(1.0, s / 150)), 3e-3),
        "step-schedule": lambda: scheduled(lambda o: StepLR(o, 150, 0.1)),
        "step-schedule-thousandth": lambda: scheduled(lambda o: StepLR(o, 150, 0.001)),
        "vanished-loss-overparametrised": lambda: t.fit(
            n.mlp([20, 256, 256, 10]), d.blobs(spread=4.0), t.adamw(3e-3), steps=500, validate=False
        ),
        "vanished-loss-sgd": lambda: t.fit(
            n.mlp([20, 128, 128, 10]), d.blobs(spread=4.0), t.sgd(0.2), steps=500, validate=True
        ),
        "accumulation": lambda: t.fit(
            n.mlp([64, 100, 100, 10]), d.digits(), t.adamw(2e-3), batch=8, steps=200, accumulate_grad_batches=4
        ),
        "accumulation-layernorm-chars": lambda: t.fit(
            n.Transformer(),
            d.name_sequences(),
            t.adamw(3e-3),
            t.sequence_loss,
            batch=8,
            steps=150,
            accumulate_grad_batches=4,
        ),
        "binary-logits": lambda: t.fit(n.mlp([12, 64, 64, 1]), d.binary(), t.adamw(2e-3), bce),
        "binary-imbalanced": imbalanced,
        "binary-imbalanced-prior-bias": prior_bias_head,
        "binary-sigmoid-bce": lambda: t.fit(
            nn.Sequential(*n.mlp([12, 64, 1], nn.Tanh), nn.Sigmoid()), d.binary(), t.adamw(3e-3), F.binary_cross_entropy
        ),
        "label-smoothing": lambda: t.fit(n.mlp([20, 64, 64, 10]), d.blobs(), t.adamw(2e-3), labels_smoothed),
        "log-softmax-nll": log_probabilities,
        "noisy-labels": noisy_labels,
        "batchnorm-batch-16": lambda: t.fit(
            n.mlp([20, 64, 64, 10], norm=nn.BatchNorm1d, bias=False), d.blobs(), t.sgd(0.05), batch=16
        ),
        "adam-no-decay-names": lambda: t.fit(
            n.name_mlp((200,)), d.name_windows(), lambda net: Adam(net.parameters(), lr=2e-3)
        ),
    }
