"""The LightningModule: cross-entropy of the next character, several optimizer steps per Lightning batch."""

import logging
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from bnlm.callbacks.tensorboard import write_step
from bnlm.clipping import clip_each
from bnlm.compiled_step import CannotCompileError, CompiledStep
from bnlm.config import first_line
from bnlm.direct_backward import direct_backward
from bnlm.direct_update import Update, direct_update
from bnlm.listeners import is_watched, steps_can_be_direct
from bnlm.metrics import SplitMetrics, derived_metrics, loss_of, over_replicas
from bnlm.models import Replicas
from bnlm.replica_rates import rates_of

log = logging.getLogger("bnlm")

OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]
SchedulerFactory = Callable[[Optimizer], LRScheduler]

#: The first steps whose losses are logged one by one: there the hockey stick shows.
EVERY_STEP_UNTIL = 100
#: A run of fewer steps saves less than the time that compiling takes the first time.
COMPILE_FROM = 30_000


class LanguageModel(LightningModule):
    """Learns to predict the next character with any `model` that maps contexts `(N, context)` to logits.

    A sequence model (`sequence = True` in its class) maps padded words `(N, T)` to logits `(N, T, vocab_size)`; its
    targets are `(N, T)`, with `IGNORED` at the paddings. Losses are means over characters in both cases.

    One Lightning batch holds several minibatches, `(steps, batch, context)`; `training_step` takes one optimizer step
    for each, and all of Lightning (`trainer.global_step`, `max_steps`, checkpoints) counts them one by one. Lightning's
    cost per batch is then paid once per chunk. Losses are logged straight to the loggers with the step they belong
    to: each of the first 100, then the mean over every `trainer.log_every_n_steps`.

    Of `Replicas` every metric is logged as the mean over them, with `_std` and `_replica_0`, ... beside it.

    Args:
        model: Maps int64 `(N, context)` to `(N, vocab_size)`, or `(N, T)` to `(N, T, vocab_size)`; or `Replicas`.
        vocab_size: Number of classes.
        optimizer: Makes the optimizer from the parameters.
        scheduler: Makes the learning rate's schedule, stepped once per optimizer step; None for a constant rate.
        gradient_clip_val: Clip gradients to this norm or value before each step; None for no clipping.
        gradient_clip_algorithm: `norm` (over all parameters) or `value` (each element).
        configuration: Whatever shall be found again in the checkpoint, as plain Python values.
        compile: Whether steps that nobody looks at are one compiled function (`CompiledStep`); "auto": in runs of at
            least `COMPILE_FROM` steps on a CPU. What cannot be compiled is trained eagerly, after one warning.
    """

    def __init__(
        self,
        model: nn.Module,
        vocab_size: int,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory | None = None,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str = "norm",
        configuration: dict[str, Any] | None = None,
        compile: bool | Literal["auto"] = False,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model = model
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        self.gradient_clip_val = gradient_clip_val
        self.gradient_clip_algorithm = gradient_clip_algorithm
        self.configuration = configuration
        self.compile_steps = compile
        self.first_loss: float | None = None
        self.last_validation: int | None = None  # the step of it
        self._losses: list[Tensor] = []  # of steps not yet logged
        self._rng_state: Tensor | None = None
        self._direct = False
        self._stepped = False  # in this fit: the optimizer has its state
        self._trained: list[nn.Parameter] = []
        self._compiled: CompiledStep | None = None
        self.replicas = model.replicas if isinstance(model, Replicas) else 1
        self.loss_of = model.loss_of if isinstance(model, Replicas) else loss_of
        self.metrics = nn.ModuleDict(
            {split: nn.ModuleList(SplitMetrics(vocab_size) for _ in range(self.replicas)) for split in ("val", "test")}
        )

    def forward(self, contexts: Tensor) -> Tensor:
        """`(N, context)` -> `(N, vocab_size)` logits, or `(N, T)` -> `(N, T, vocab_size)`."""
        return self.model(contexts)

    def configure_optimizers(self) -> Any:
        optimizer = self.make_optimizer(self.parameters())
        if self.make_scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": self.make_scheduler(optimizer)}

    def on_train_start(self) -> None:
        self._direct = steps_can_be_direct(self.trainer)
        self._stepped = False
        self._trained = list(self.parameters())
        if self._rng_state is not None:
            torch.set_rng_state(self._rng_state)
            self._rng_state = None
        self._compiled = self._compiled_step() if self._shall_compile() else None

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Take one optimizer step per minibatch of `(steps, N, context)` contexts and `(steps, N)` targets.

        Of sequences the targets are `(steps, N, T)`.

        Returns:
            `(steps,)`: the loss of each.
        """
        first_step = self.global_step
        optimizer: Any = self.optimizers()
        scheduler: Any = self.lr_schedulers()
        model, parameters = self.model, self._trained
        losses: list[Tensor] = []
        update: Update | None = None
        for index, (contexts, targets) in enumerate(zip(batch[0].unbind(), batch[1].unbind(), strict=True)):
            unseen = bool(losses) or not is_watched(optimizer.optimizer)
            compiled = self._ready_to_run(contexts, targets) if unseen else None
            if compiled is not None:
                rates = self._count_steps(len(batch[0]) - index)
                losses += compiled(batch[0][index:], batch[1][index:], rates).unbind()
                break
            loss = self.loss_of(model(contexts), targets)
            total = loss if self.replicas == 1 else loss.sum()  # nothing passes from one to another
            for parameter in parameters:  # optimizer.zero_grad() takes ten times as long
                parameter.grad = None
            direct = unseen and self._direct and self._stepped
            if direct:
                direct_backward(total)
            else:
                self.manual_backward(total)
            if self.gradient_clip_val is not None and self.replicas > 1:
                clip_each(parameters, self.gradient_clip_val, self.gradient_clip_algorithm, self.replicas)
            elif self.gradient_clip_val is not None:
                self.clip_gradients(optimizer, self.gradient_clip_val, self.gradient_clip_algorithm)
            if direct:  # LightningOptimizer.step without the hooks in between: it still counts
                if update is None:
                    update = direct_update(optimizer.optimizer)
                optimizer._on_before_step()
                update()
                optimizer._on_after_step()
            else:
                optimizer.step()
                self._stepped = True
            if scheduler is not None:
                scheduler.step()
            losses.append(loss.detach())
        each = torch.stack(losses)
        self._log_losses(first_step, each)
        return each if self.replicas == 1 else each.mean(dim=1)

    def _count_steps(self, steps: int) -> list[list[float]]:
        """Have Lightning and the schedule count steps; return the learning rates of each."""
        optimizer: Any = self.optimizers()
        scheduler: Any = self.lr_schedulers()
        rates = []
        for _ in range(steps):
            rates.append(rates_of(optimizer.optimizer))
            optimizer._on_before_step()
            optimizer._on_after_step()
            if scheduler is not None:
                scheduler.step()
        return rates

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._evaluate("val", batch)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._evaluate("test", batch)

    def _evaluate(self, split: str, batch: tuple[Tensor, Tensor]) -> None:
        logits = self(batch[0])
        for metrics, of_one in zip(self._split(split), logits if self.replicas > 1 else (logits,), strict=True):
            metrics.update(of_one, batch[1])

    def on_validation_epoch_end(self) -> None:
        self._log_split("val")

    def on_test_epoch_end(self) -> None:
        self._log_split("test")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["bnlm"] = {
            "configuration": self.configuration,
            "first_loss": self.first_loss,
            "rng_state": torch.get_rng_state(),
            "unlogged_losses": torch.cat(self._losses).cpu() if self._losses else torch.empty(0),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        saved = checkpoint["bnlm"]
        self.first_loss = saved["first_loss"]
        self._rng_state = saved["rng_state"]
        unlogged = saved["unlogged_losses"]
        self._losses = [unlogged] if len(unlogged) else []
        # Lightning validates every so many batches. If the last one was cut short, or had another number of steps,
        # its count has to follow the optimizer steps again for validations to stay where they belong.
        steps_per_batch = getattr(getattr(self.trainer, "datamodule", None), "steps_per_batch", None)
        if steps_per_batch is not None:
            counted = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]
            counted.update(dict.fromkeys(counted, checkpoint["global_step"] // steps_per_batch))

    def _shall_compile(self) -> bool:
        if self.compile_steps == "auto":
            return self._direct and self.device.type == "cpu" and self.trainer.max_steps >= COMPILE_FROM
        return bool(self.compile_steps)

    def _compiled_step(self) -> CompiledStep | None:
        optimizer: Any = self.optimizers()
        try:
            if not self._direct or is_watched(optimizer.optimizer):
                raise CannotCompileError(
                    "a callback or an optimizer hook wants to hear of every step, or the strategy or precision is "
                    "another than one device in plain precision"
                )
            return CompiledStep(
                self.model, self.loss_of, optimizer.optimizer, self.gradient_clip_val, self.gradient_clip_algorithm
            )
        except CannotCompileError as error:
            if self.trainer.is_global_zero:
                log.warning("compile=%s: %s; the run goes on eagerly.", self.compile_steps, error)
            return None

    def _ready_to_run(self, contexts: Tensor, targets: Tensor) -> CompiledStep | None:
        """Return the compiled step, compiled for minibatches like this one; None while or where there is none."""
        if self._compiled is None or not self._compiled.ready:
            return None
        try:
            self._compiled.begin(contexts, targets)
        except Exception as error:  # whatever a compiler, or a model that is not to be traced, may raise
            log.warning("compile=%s: %s; the run goes on eagerly.", self.compile_steps, first_line(error))
            self._compiled = None
        return self._compiled

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        """Write to every logger. `self.log` would count batches on the x axis, of which one holds many steps."""
        write_step(self.loggers, step, metrics)

    def _split(self, name: str) -> list[SplitMetrics]:
        found = self.metrics[name]
        assert isinstance(found, nn.ModuleList)
        return [metrics for metrics in found if isinstance(metrics, SplitMetrics)]

    def _log_split(self, name: str) -> None:
        computed = over_replicas([metrics.compute() for metrics in self._split(name)])
        metrics = {f"{name}/{metric}": value for metric, value in computed.items()}
        for each in self._split(name):
            each.reset()
        if self.trainer.sanity_checking:
            return
        if name == "val":
            self.last_validation = self.global_step
        # For checkpoints, early stopping and the progress bar; torchmetrics has them equal on all processes already.
        self.log_dict(metrics, logger=False, sync_dist=self.trainer.world_size > 1)
        self.log_metrics(metrics, self.global_step)

    def _log_losses(self, first_step: int, losses: Tensor) -> None:
        """Log each of the first losses, then means; step numbers are those of the minibatches (0 = before any step)."""
        if first_step < EVERY_STEP_UNTIL:
            early = self.trainer.strategy.reduce(losses).tolist()
            if first_step == 0:
                self.first_loss = _mean(early[0])
            for step, loss in enumerate(early, start=first_step):
                self._log_train(step, loss)
            return
        self._losses.append(losses)
        trainer: Any = self.trainer
        if sum(map(len, self._losses)) >= trainer.log_every_n_steps:
            mean = torch.cat([part.to(losses.device) for part in self._losses]).mean(dim=0)
            self._losses = []
            loss = self.trainer.strategy.reduce(mean).tolist()
            self._log_train(first_step + len(losses) - 1, loss)

    def _log_train(self, step: int, loss: float | list[float]) -> None:
        optimizer: Any = self.optimizers()
        of_each = [derived_metrics(each) for each in (loss if isinstance(loss, list) else [loss])]
        metrics = {f"train/{name}": value for name, value in over_replicas(of_each).items()}
        # For the progress bar and whoever monitors it. `self.log` does so too, and takes as long as half a step.
        self.trainer.callback_metrics["train/loss"] = torch.tensor(metrics["train/loss"])
        rates = over_replicas([{"train/lr": rate} for rate in rates_of(optimizer.optimizer)])
        self.log_metrics({**metrics, **rates}, step)


def _mean(loss: float | list[float]) -> float:
    return loss if isinstance(loss, float) else sum(loss) / len(loss)
