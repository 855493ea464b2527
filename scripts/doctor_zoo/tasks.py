"""The LightningModules of the zoo, and the two lines that make a run of a network and a data set."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from lightning import LightningModule
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from doctor_zoo.case import Run
from doctor_zoo.data import Data

Loss = Callable[[Tensor, Tensor], Tensor]
MakeOptimizer = Callable[[nn.Module], Optimizer]
MakeSchedule = Callable[[Optimizer], LRScheduler]


def sgd(lr: float, momentum: float = 0.0, **more: Any) -> MakeOptimizer:
    """Plain SGD over all parameters of the network that require a gradient."""
    return lambda net: SGD(_trained(net), lr=lr, momentum=momentum, **more)


def adamw(lr: float, **more: Any) -> MakeOptimizer:
    """AdamW over all parameters of the network that require a gradient."""
    return lambda net: AdamW(_trained(net), lr=lr, **more)


def _trained(net: nn.Module) -> list[nn.Parameter]:
    return [p for p in net.parameters() if p.requires_grad]


def sequence_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of ``(N, T, V)`` logits and ``(N, T)`` targets, mean over the positions that are not -100."""
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


class Supervised(LightningModule):
    """A network, a loss of its output and the target, one optimizer."""

    def __init__(self, net: nn.Module, loss: Loss, optimizer: MakeOptimizer, schedule: MakeSchedule | None) -> None:
        super().__init__()
        self.net = net
        self.loss = loss
        self.make_optimizer = optimizer
        self.make_schedule = schedule

    def forward(self, x: Tensor) -> Tensor:
        """The network's output."""
        return self.net(x)

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """Return the loss of one batch."""
        x, y = batch
        loss = self.loss(self(x), y)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        """Log the loss of one validation batch."""
        x, y = batch
        self.log("val_loss", self.loss(self(x), y))

    def configure_optimizers(self) -> Any:
        """One optimizer, and a schedule that is stepped each step."""
        optimizer = self.make_optimizer(self.net)
        if self.make_schedule is None:
            return optimizer
        schedule = {"scheduler": self.make_schedule(optimizer), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": schedule}


class GAN(LightningModule):
    """A generator of points in the plane and its critic, stepped in turn by hand (Goodfellow et al. 2014)."""

    def __init__(self, generator: nn.Module, critic: nn.Module, lr: float = 1e-3) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.generator = generator
        self.critic = critic
        self.lr = lr

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        """One step of the critic, then one of the generator."""
        real = batch[0]
        for_generator, for_critic = self.optimizers()
        fake = self.generator(torch.randn(len(real), 4))
        right, wrong = self.critic(real), self.critic(fake.detach())
        loss = F.binary_cross_entropy_with_logits(right, torch.ones_like(right))
        loss = loss + F.binary_cross_entropy_with_logits(wrong, torch.zeros_like(wrong))
        for_critic.zero_grad()
        self.manual_backward(loss)
        for_critic.step()
        judged = self.critic(fake)
        loss = F.binary_cross_entropy_with_logits(judged, torch.ones_like(judged))
        for_generator.zero_grad()
        self.manual_backward(loss)
        for_generator.step()
        self.log("train_loss", loss)

    def configure_optimizers(self) -> list[Optimizer]:
        """Adam for either."""
        parts = (self.generator, self.critic)
        return [torch.optim.Adam(part.parameters(), lr=self.lr, betas=(0.5, 0.9)) for part in parts]


class Variational(LightningModule):
    """A variational autoencoder with two hidden numbers (Kingma & Welling 2013, 1312.6114)."""

    def __init__(self, features: int = 20) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(features, 48), nn.ReLU(), nn.Linear(48, 4))
        self.decoder = nn.Sequential(nn.Linear(2, 48), nn.ReLU(), nn.Linear(48, features))

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """Squared error plus the divergence of the code from a standard normal, nats per example."""
        x = batch[0]
        mean, log_var = self.encoder(x).chunk(2, 1)
        code = mean + torch.randn_like(mean) * (0.5 * log_var).exp()
        divergence = -0.5 * (1 + log_var - mean**2 - log_var.exp()).sum(1).mean()
        return 0.5 * F.mse_loss(self.decoder(code), x, reduction="none").sum(1).mean() + divergence

    def configure_optimizers(self) -> Optimizer:
        """AdamW."""
        return AdamW(self.parameters(), lr=2e-3)


def fit(
    net: nn.Module,
    data: Data,
    optimizer: MakeOptimizer,
    loss: Loss = F.cross_entropy,
    schedule: MakeSchedule | None = None,
    batch: int = 32,
    steps: int = 300,
    validate: bool = True,
    **trainer: Any,
) -> Run:
    """Return the run of one network on one data set."""
    return run(Supervised(net, loss, optimizer, schedule), data, batch, steps, validate, **trainer)


def run(
    module: LightningModule, data: Data, batch: int = 32, steps: int = 300, validate: bool = False, **trainer: Any
) -> Run:
    """Return the run of any module; further arguments are the Trainer's."""
    train: DataLoader[Any] = DataLoader(data.train, batch, shuffle=True, drop_last=True)
    val: DataLoader[Any] | None = DataLoader(data.val, 250) if validate else None
    return Run(module, train, val, steps, trainer)


def pretrained(
    net: nn.Module, data: Data, steps: int = 250, lr: float = 2e-3, loss: Loss = F.cross_entropy
) -> nn.Module:
    """Train a network by AdamW in a bare loop and return it."""
    optimizer = AdamW(net.parameters(), lr=lr)
    x, y = data.train.tensors
    for _ in range(steps):
        pick = torch.randint(len(x), (64,))
        optimizer.zero_grad()
        loss(net(x[pick]), y[pick]).backward()
        optimizer.step()
    return net


def except_for(left_out: Iterable[nn.Parameter], make: Callable[[list[nn.Parameter]], Optimizer]) -> MakeOptimizer:
    """An optimizer of all parameters but some, as when a part of the model was forgotten."""
    ids = {id(p) for p in left_out}
    return lambda net: make([p for p in net.parameters() if id(p) not in ids])


def with_own_lr(part: nn.Module, lr: float, rest: float, kind: type[Optimizer] = SGD) -> MakeOptimizer:
    """An optimizer with learning rate `lr` for one part of the network and `rest` for the others."""
    own = {id(p) for p in part.parameters()}

    def make(net: nn.Module) -> Optimizer:
        groups = [
            {"params": list(part.parameters()), "lr": lr},
            {"params": [p for p in net.parameters() if id(p) not in own]},
        ]
        return kind(groups, lr=rest)  # type: ignore[call-arg]

    return make
