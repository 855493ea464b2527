"""Several monitors on one trainer look at a step together: one probe, one transfer to the host."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy

from bnlm.callbacks.observed_step import observed_step
from bnlm.callbacks.tensorboard import write_layout, write_step
from bnlm.probe import Names, StepProbe, StepRecord, Wanted, in_order
from bnlm.stats import pooled_by_owner

if TYPE_CHECKING:
    from bnlm.callbacks.monitor import Monitor


#: What Lightning calls on every batch, of every callback: an unused hook costs as much as a small tensor operation.
BATCH_HOOKS = (
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
)
#: Those that matter on the batches that are observed alone.
WHEN_DUE = ("on_train_batch_start", "on_before_zero_grad", "on_after_backward")


class SharedObservation:
    """The monitors of one trainer and the probe they share while a step is observed."""

    _of_trainer: ClassVar[WeakKeyDictionary[Trainer, SharedObservation]] = WeakKeyDictionary()

    def __init__(self) -> None:
        self.members: list[Monitor] = []
        self._leader: Monitor | None = None
        self._listens_when_due: list[str] = []  # hooks of the leader
        self._due = 0
        self._batches_left = 0  # that cannot reach the step that is due
        self._step = -1
        self._asked: dict[Monitor, Wanted] = {}
        self._probe: StepProbe | None = None
        self._names: Names | None = None
        self._steps_before = 0
        self._layout_written = False

    @classmethod
    def join(cls, trainer: Trainer, monitor: Monitor) -> SharedObservation:
        """Return the observation of `trainer`, with `monitor` among its members.

        Raises:
            ValueError: Under FSDP, DeepSpeed and tensor parallelism, where a parameter is only a shard of itself.
        """
        if isinstance(trainer.strategy, FSDPStrategy | DeepSpeedStrategy | ModelParallelStrategy):
            raise ValueError(
                f"{type(monitor).__name__} cannot watch {type(trainer.strategy).__name__}: each process holds shards "
                "of the parameters, whose statistics would be wrong. Use a strategy with whole parameters (auto, ddp), "
                "or remove the callback."
            )
        shared = cls._of_trainer.setdefault(trainer, cls())
        if monitor not in shared.members:
            shared.members.append(monitor)
        return shared

    def begin(self, trainer: Trainer) -> None:
        """Choose the member that hears of the batches for all, and silence what nobody has to hear.

        Lightning leaves out a hook that cannot be called. On a step of a millisecond, those of four callbacks that do
        nothing take a twentieth of it.
        """
        self._leader = ([m for m in self.members if m.hears_every_batch] or self.members)[-1]
        self._listens_when_due = []
        for member in self.members:
            if member not in trainer.callbacks:  # type: ignore[attr-defined]  # somebody else calls its hooks
                continue
            idle = member.idle_hooks(trainer)
            if member is self._leader:
                self._listens_when_due = [hook for hook in idle if hook in WHEN_DUE]
                idle = [hook for hook in idle if hook not in (*WHEN_DUE, "on_train_batch_end")]
            for hook in idle:
                vars(member)[hook] = None
        self._listen(True)  # the members ask when the first batch begins; what was due in an earlier fit is of others
        self._due = self._batches_left = 0

    def _listen(self, listens: bool) -> None:
        """Have the leader hear of the next batch's parts, or not."""
        for hook in self._listens_when_due:
            if listens:
                vars(self._leader).pop(hook, None)
            else:
                vars(self._leader)[hook] = None

    def ask(self, monitor: Monitor, wanted: Wanted, step: int) -> None:
        """`monitor` wants to see the step that begins now."""
        if self._probe is None:
            self._asked[monitor] = wanted
            self._step = step

    def batch_starts(self, monitor: Monitor, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give every member its turn to ask, then attach the probe."""
        if monitor is not self._leader:
            return
        step = trainer.global_step
        for member in self.members:
            member.step_begins(trainer, step)
        self._due = min(member.next_due for member in self.members)
        if self._probe is not None:  # the step observed is still to come: gradients are being accumulated
            self._probe.next_forward()
        elif self._asked:
            wanted = Wanted()
            for each in self._asked.values():
                wanted |= each
            if self._names is None:
                self._names = Names(pl_module)
            self._probe = StepProbe(pl_module, trainer.optimizers, wanted, self._names)
            self._steps_before = step
            self._probe.attach()

    def before_zero_grad(self, monitor: Monitor) -> None:
        """The forward of automatic optimization is over."""
        if self._probe is not None and monitor is self._leader:
            self._probe.pause()

    def after_backward(self, monitor: Monitor, trainer: Trainer) -> None:
        """Let the probe read the gradients, of which a scaler (fp16) may have made a multiple."""
        if self._probe is not None and monitor is self._leader:
            scaler = getattr(trainer.precision_plugin, "scaler", None)
            self._probe.after_backward(None if scaler is None else scaler._scale)
            if trainer.lightning_module.automatic_optimization:
                self._probe.pause()

    def batch_ends(self, monitor: Monitor, trainer: Trainer) -> None:
        """Publish what was seen, if the batch brought an optimizer step."""
        if monitor is not self._leader:
            return
        if self._probe is None:
            self._batches_left -= 1
            if self._batches_left <= 0 and trainer.global_step >= self._due:
                self._listen(True)
            return
        if not self._probe.done and trainer.global_step == self._steps_before:
            return
        self._probe.detach()
        asked, record = self._asked, self._probe.record()
        self._probe, self._asked = None, {}
        left = self._due - trainer.global_step
        self._listen(left <= 0)
        # Counted, for to ask for the step costs as much as all else here: a batch takes one step at most.
        self._batches_left = left if trainer.lightning_module.automatic_optimization else 0
        if trainer.world_size > 1:
            _pool_over_ranks(record, trainer.world_size)
        for member, wanted in asked.items():
            member.check_patterns(record, wanted)
        if not trainer.is_global_zero:
            return
        if not self._layout_written:
            self._layout_written = True
            write_layout(trainer.loggers, {title: tags for m in self.members for title, tags in m.charts.items()})
        seen = observed_step(record, self._step)
        scalars: dict[str, float] = {}
        histograms: dict[str, np.ndarray] = {}
        for member in asked:
            more_scalars, more_histograms = member.publish(trainer, seen)
            scalars |= more_scalars
            histograms |= more_histograms
        write_step(trainer.loggers, self._step, scalars, histograms)
        for member in asked:
            member.conclude(trainer)

    def release(self) -> None:
        """Take the probe off and forget it and the members: training ended, or failed in the middle of a step."""
        if self._probe is not None:
            self._probe.detach()
        self._probe, self._asked, self._names = None, {}, None
        for member in self.members:
            for hook in BATCH_HOOKS:
                vars(member).pop(hook, None)
        self.members.clear()  # the trainer may fit again with other callbacks


#: What differs between processes; gradients (after their reduction) and parameters are equal on all of them.
_OF_ACTIVATIONS = ("output", "input", "output gradient")


def _pool_over_ranks(record: StepRecord, world_size: int) -> None:
    """Pool the activation statistics over all processes, of the layers that each has seen."""
    _keep_what_all_have(record, world_size)
    pooled = [record.sums[g] for g in _OF_ACTIVATIONS if g in record.sums]
    parts = [*(p.sums for p in pooled), *record.flat.values(), *record.responded.values()]
    if not sum(t.numel() for t in parts):
        return
    joined = torch.cat([t.to(parts[0].dtype).reshape(-1) for t in parts])
    of_ranks = [torch.empty_like(joined) for _ in range(world_size)]
    torch.distributed.all_gather(of_ranks, joined)
    split = [iter(of_rank.split([t.numel() for t in parts])) for of_rank in of_ranks]
    for each in pooled:
        rows = torch.cat([next(of_rank).reshape(-1, 3) for of_rank in split])
        each.sums = pooled_by_owner(rows, [*range(len(each.names))] * world_size, len(each.names))
    record.flat = {layer: torch.stack([next(of_rank) for of_rank in split]).sum(0) for layer in record.flat}
    record.responded = {layer: torch.stack([next(of_rank) for of_rank in split]).any(0) for layer in record.responded}


def _keep_what_all_have(record: StepRecord, world_size: int) -> None:
    """Leave out what a process lacks, which may have gone another way through its batch, and put all in one order."""
    mine = {group: dict.fromkeys(record.sums[group].names, 3) for group in _OF_ACTIVATIONS if group in record.sums}
    mine |= {"flat": dict.fromkeys(record.flat, 2), "responded": {n: len(t) for n, t in record.responded.items()}}
    everyone: list[dict[str, dict[str, int]]] = [{}] * world_size
    torch.distributed.all_gather_object(everyone, mine)

    def common(group: str) -> list[str]:
        first = everyone[0].get(group, {})
        return [name for name in first if all(each.get(group, {}).get(name) == first[name] for each in everyone)]

    for group in _OF_ACTIVATIONS:
        if group in record.sums:
            record.sums[group] = in_order(record.sums[group], common(group))
    record.kinds = {layer: record.kinds[layer] for layer in common("output")}
    record.flat = {layer: record.flat[layer] for layer in common("flat")}
    record.responded = {layer: record.responded[layer] for layer in common("responded")}
