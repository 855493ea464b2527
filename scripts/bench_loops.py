"""The loops that ours is compared with, on the lecture's deep network: bare, the notebook's, and Lightning's."""

import contextlib
import os
import tempfile
import time

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

BATCH, CONTEXT, N_EMBD, HIDDEN, DEPTH = 32, 3, 10, 100, 5


def deep_mlp(vocab_size: int) -> nn.Sequential:
    """The lecture's deep network over torch.nn: five tanh layers, BatchNorm after every Linear, the output's too."""
    layers: list[nn.Module] = [nn.Embedding(vocab_size, N_EMBD), nn.Flatten()]
    fan_in = CONTEXT * N_EMBD
    for _ in range(DEPTH):
        layers += [nn.Linear(fan_in, HIDDEN, bias=False), nn.BatchNorm1d(HIDDEN), nn.Tanh()]
        fan_in = HIDDEN
    layers += [nn.Linear(HIDDEN, vocab_size, bias=False), nn.BatchNorm1d(vocab_size)]
    return nn.Sequential(*layers)


def bare_loop(contexts: Tensor, targets: Tensor, vocab_size: int, steps: int) -> float:
    """Seconds of a loop over torch.nn modules with torch.optim.SGD: no logging, no statistics, no Lightning."""
    model = deep_mlp(vocab_size)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(0)
    started = time.perf_counter()
    for _ in range(steps):
        index = torch.randint(len(targets), (BATCH,), generator=generator)
        loss = F.cross_entropy(model(contexts[index]), targets[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.perf_counter() - started


def lecture_loop(contexts: Tensor, targets: Tensor, vocab_size: int, steps: int) -> float:
    """Seconds of a loop in the notebook's style: gradients of activations kept, the loss and update:data each step."""
    model = deep_mlp(vocab_size)
    parameters = list(model.parameters())
    generator = torch.Generator().manual_seed(0)
    losses, updates = [], []
    started = time.perf_counter()
    for _ in range(steps):
        index = torch.randint(len(targets), (BATCH,), generator=generator)
        x = contexts[index]
        for layer in model:
            x = layer(x)
            x.retain_grad()
        loss = F.cross_entropy(x, targets[index])
        for p in parameters:
            p.grad = None
        loss.backward()
        for p in parameters:
            assert p.grad is not None
            p.data += -0.1 * p.grad
        losses.append(loss.log10().item())
        with torch.no_grad():
            updates.append([((0.1 * p.grad).std() / p.data.std()).log10().item() for p in parameters])
    return time.perf_counter() - started


class PlainModule(LightningModule):
    """Automatic optimization, and the loss logged each step."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.model = deep_mlp(vocab_size)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        loss = F.cross_entropy(self.model(batch[0]), batch[1])
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def lightning_loop(contexts: Tensor, targets: Tensor, vocab_size: int, steps: int) -> float:
    """Seconds of Lightning as people write it: DataLoader, progress bar, TensorBoard, `self.log` each step."""
    loader = DataLoader(TensorDataset(contexts, targets), batch_size=BATCH, shuffle=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        trainer = Trainer(
            accelerator="cpu", devices=1, max_steps=steps, max_epochs=-1, logger=TensorBoardLogger(folder)
        )
        module = PlainModule(vocab_size)
        started = time.perf_counter()
        trainer.fit(module, loader)
        return time.perf_counter() - started
