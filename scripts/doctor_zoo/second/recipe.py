"""The LightningModule of these runs, their losses and schedules, and the line that makes a run."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from lightning import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, OneCycleLR

from doctor_zoo.case import Case, Run
from doctor_zoo.second.data import loader

MakeOptimizer = Callable[[nn.Module], Optimizer]
MakeSchedule = Callable[[Optimizer], LRScheduler]
Loss = Callable[[Any, Tensor], Tensor]


class Cases:
    """Collects runs: called with a name, the causes of a sick one, how it is made, every how many steps it is seen."""

    def __init__(self) -> None:
        self.cases: list[Case] = []

    def __call__(self, name: str, *of: Any) -> None:
        """Take in ``name, [causes,] make, [every_n_steps, [critical]]``; causes name the case."""
        causes: tuple[str, ...] = of[0] if isinstance(of[0], tuple) else ()
        make, *rest = of[1:] if causes else of
        every, critical = [*rest, *(100, False)[len(rest) :]]
        full = f"{causes[0]}/{name}" if causes else name
        self.cases.append(Case(full, make, causes, critical, 7000 + len(self.cases), every))


def GROUPS(channels: int) -> nn.GroupNorm:
    """Four groups of channels."""
    return nn.GroupNorm(4, channels)


def opt(kind: str, lr: float, **more: Any) -> MakeOptimizer:
    """An optimizer of torch.optim's over all parameters that require a gradient."""
    return lambda net: getattr(torch.optim, kind)([p for p in net.parameters() if p.requires_grad], lr=lr, **more)


def cosine(steps: int) -> MakeSchedule:
    """Down to zero in so many steps."""
    return lambda optimizer: CosineAnnealingLR(optimizer, steps)


def one_cycle(lr: float, steps: int) -> MakeSchedule:
    """Up to `lr` and down again (Smith 2018)."""
    return lambda optimizer: OneCycleLR(optimizer, lr, total_steps=steps + 1)


def warm_up(steps: int) -> MakeSchedule:
    """Linear."""
    return lambda optimizer: LambdaLR(optimizer, lambda step: min(1, (step + 1) / steps))


def sequence_loss(out: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of ``(N, T, V)`` and ``(N, T)``."""
    return F.cross_entropy(out.reshape(-1, out.shape[-1]), y.reshape(-1))


def vae_loss(out: tuple[Tensor, Tensor, Tensor], y: Tensor) -> Tensor:
    """Squared error and a little of the divergence from N(0, 1) (Kingma & Welling 2013)."""
    x, mean, log_var = out
    return F.mse_loss(x, y) + 1e-3 * (-0.5 * (1 + log_var - mean**2 - log_var.exp())).sum(1).mean()


def contrastive_loss(similarities: Tensor, _: Tensor) -> Tensor:
    """Cross-entropy of ``(N, N)`` similarities, the right ones on the diagonal."""
    return F.cross_entropy(similarities, torch.arange(len(similarities)))


class Plain(LightningModule):
    """A network, a loss, an optimizer, in as few lines as people write."""

    def __init__(
        self, net: nn.Module, loss: Loss, optimizer: MakeOptimizer, schedule: MakeSchedule | None, log: bool
    ) -> None:
        super().__init__()
        self.model = net
        self.criterion = loss
        self.optimizer = optimizer
        self.schedule = schedule
        self.logs = log

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """Return the loss of one batch."""
        loss = self.criterion(self.model(batch[0]), batch[1])
        if self.logs:
            self.log("loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        """Log the loss of one validation batch."""
        self.log("val_loss", self.criterion(self.model(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        """One optimizer, and a schedule that is stepped each step."""
        optimizer = self.optimizer(self.model)
        if self.schedule is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": self.schedule(optimizer), "interval": "step"}}


def fit(
    net: nn.Module,
    data: tuple[Tensor, Tensor],
    opt: MakeOptimizer,
    loss: Loss = F.cross_entropy,
    steps: int = 300,
    batch: int = 32,
    val: float = 0.0,
    sched: MakeSchedule | None = None,
    trainer: dict[str, Any] | None = None,
    log: bool = False,
) -> Run:
    """Return the run of one network; `val` is the share of the examples that is validated on after each epoch."""
    x, y = data
    kept = int(len(x) * (1 - val))
    validation = loader(x[kept:], y[kept:], batch=256, shuffle=False) if val else None
    return Run(
        Plain(net, loss, opt, sched, log), loader(x[:kept], y[:kept], batch=batch), validation, steps, trainer or {}
    )
