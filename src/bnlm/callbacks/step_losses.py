"""The loss of each optimizer step of anybody's LightningModule, without a wait for the device it is on."""

from collections.abc import Callable
from itertools import islice
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

#: Losses that wait for somebody to take them.
MAX_WAITING = 5000


class StepLosses:
    """Collects what `training_step` returns, or what manual optimization calls `backward` on.

    Micro-batches of gradient accumulation are averaged to their step. Of several optimizers a loss is collected where
    all of them took a step after one backward pass: those of networks that are trained against each other need not
    fall.
    """

    def __init__(self) -> None:
        self._waiting: list[float | Tensor] = []  # tensors of a device on which to read one is to wait
        self._last: Tensor | None = None  # what the last batch's end brought
        self._backward: list[Tensor] = []  # of this batch, should it return none
        self._micro: list[Tensor] = []  # of micro-batches whose step is still to come
        self._step_of_micro = 0
        self._step_at_end = 0  # of the last batch
        self._collects = True
        self._optimizers = 1

    def start(self, trainer: Trainer) -> None:
        """Forget what waited: training starts. Only the first process collects."""
        for waiting in (self._waiting, self._backward, self._micro):
            waiting.clear()
        self._last = None
        self._step_of_micro = self._step_at_end = trainer.global_step
        self._collects = trainer.is_global_zero
        self._optimizers = len(trainer.optimizers)

    def before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Keep a loss of manual optimization, of which a scaler (fp16) may have made a multiple."""
        if not pl_module.automatic_optimization and len(self._backward) < MAX_WAITING:
            scale = getattr(getattr(trainer.precision_plugin, "scaler", None), "_scale", None)
            self._backward.append(loss.detach() if scale is None else loss.detach() / scale)

    def batch_ends(self, trainer: Trainer, pl_module: LightningModule, outputs: Any) -> None:
        """Keep the loss that a batch returned: `()`, or several of any shape, one for each step that it took."""
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if not pl_module.automatic_optimization:
            before, self._step_at_end = self._step_at_end, trainer.global_step
            taken = self._step_at_end - before
            if self._optimizers > 1 and not (len(self._backward) == 1 and taken == self._optimizers):
                self._backward.clear()
                return
            if self._backward and not isinstance(loss, Tensor):
                loss = torch.stack([each.float().mean() for each in self._backward]).mean()
            elif isinstance(loss, Tensor) and loss.numel() not in (1, taken):  # one for each example, say
                loss = loss.float().mean()
            self._backward.clear()
        self._last = None
        if not self._collects or not isinstance(loss, Tensor):
            return
        if loss.requires_grad:
            loss = loss.detach()
        if trainer.accumulate_grad_batches == 1 or not pl_module.automatic_optimization:
            self._keep(loss)
            self._last = loss
        else:
            self._add_micro(trainer, loss)

    def in_passing(self, loss: Tensor | None, steps: int) -> Callable[[Tensor], None] | None:
        """Return what keeps the losses of so many batches without their ends, if this one's brought `loss`."""
        if loss is None or (self._collects and self._last is not loss):
            return None
        has_room = self._collects and len(self._waiting) + steps <= MAX_WAITING
        if not has_room:
            return self._keep
        append = self._waiting.append
        return (lambda loss: append(loss.item())) if loss.is_cpu else append

    def _keep(self, loss: Tensor) -> None:
        if self._collects and len(self._waiting) < MAX_WAITING:
            self._waiting += loss.reshape(-1).tolist() if loss.is_cpu else [loss]

    def take(self) -> list[float]:
        """Return what waited, and forget it."""
        numbers = [loss for loss in self._waiting if isinstance(loss, float)]
        if len(numbers) < len(self._waiting):
            numbers = []
            tensors = [loss.reshape(-1) for loss in self._waiting if isinstance(loss, Tensor)]
            of_tensors = iter(torch.cat(tensors).float().tolist())
            for loss in self._waiting:
                numbers += islice(of_tensors, loss.numel()) if isinstance(loss, Tensor) else (loss,)
        self._waiting.clear()  # to which `in_passing` may have given away how to append
        return numbers

    def _add_micro(self, trainer: Trainer, loss: Tensor) -> None:
        """Take in the loss of a micro-batch, which may complete an optimizer step."""
        if not self._micro and not trainer.is_last_batch:  # the first of several, though one batch was a step until now
            self._step_of_micro = trainer.global_step
        self._micro.append(loss * trainer.accumulate_grad_batches)  # of which Lightning has taken the mean already
        if trainer.global_step != self._step_of_micro:
            self._keep(torch.stack(self._micro).mean())
            self._step_of_micro = trainer.global_step
            self._micro.clear()
