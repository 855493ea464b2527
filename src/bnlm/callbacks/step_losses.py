"""The loss of each optimizer step of anybody's LightningModule, without a transfer to the host."""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

#: Losses that wait for somebody to take them, as tensors.
MAX_WAITING = 5000


class StepLosses:
    """Collects what `training_step` returns, or what manual optimization calls `backward` on.

    Micro-batches of gradient accumulation are averaged to their step. With several optimizers nothing is collected: the
    losses of networks that are trained against each other need not fall.
    """

    def __init__(self) -> None:
        self._waiting: list[Tensor] = []
        self._backward: list[Tensor] = []  # of this batch, should it return none
        self._micro: list[Tensor] = []  # of micro-batches whose step is still to come
        self._step_of_micro = 0

    def start(self, step: int) -> None:
        """Forget what waited: training starts at `step`."""
        for waiting in (self._waiting, self._backward, self._micro):
            waiting.clear()
        self._step_of_micro = step

    def before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Keep a loss of manual optimization, of which a scaler (fp16) may have made a multiple."""
        if not pl_module.automatic_optimization and len(self._backward) < MAX_WAITING:
            scale = getattr(getattr(trainer.precision_plugin, "scaler", None), "_scale", None)
            self._backward.append(loss.detach() if scale is None else loss.detach() / scale)

    def batch_ends(self, trainer: Trainer, pl_module: LightningModule, outputs: Any) -> None:
        """Keep the loss that a batch returned: `()`, or several of any shape."""
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if not isinstance(loss, Tensor) and self._backward:
            loss = torch.stack(self._backward).mean()
        self._backward.clear()
        if isinstance(loss, Tensor) and len(trainer.optimizers) == 1 and len(self._waiting) < MAX_WAITING:
            self._waiting += self._of_step(trainer, pl_module, loss.detach())

    def take(self) -> Tensor | None:
        """Return what waited, `(steps,)`, and forget it; None if there was nothing."""
        if not self._waiting:
            return None
        joined = torch.cat([loss.reshape(-1).float() for loss in self._waiting])
        self._waiting.clear()
        return joined

    def _of_step(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> list[Tensor]:
        """Return the loss of the optimizer step that this batch completes, if it does."""
        if trainer.accumulate_grad_batches == 1 or not pl_module.automatic_optimization:
            return [loss]
        self._micro.append(loss * trainer.accumulate_grad_batches)  # of which Lightning has taken the mean already
        if trainer.global_step == self._step_of_micro:
            return []
        of_step, self._step_of_micro = torch.stack(self._micro).mean(), trainer.global_step
        self._micro.clear()
        return [of_step]
