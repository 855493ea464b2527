"""Several monitors on one trainer look at a step together: one probe, one transfer to the host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar
from weakref import WeakKeyDictionary

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch.optim import Optimizer

from bnlm.callbacks.passing_steps import PassingSteps
from bnlm.callbacks.unread_steps import Asked, UnreadSteps
from bnlm.probe import ActivationModules, Names, StepProbe, Wanted, heard_optimizers, leave_what_is_over

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
    """The monitors of one trainer and the probe they share while a step is observed.

    What was seen of a step is copied at once, and read (reduced, written, judged) soon after, see `UnreadSteps`.
    """

    _of_trainer: ClassVar[WeakKeyDictionary[Trainer, SharedObservation]] = WeakKeyDictionary()

    def __init__(self, trainer: Trainer) -> None:
        self.members: list[Monitor] = []
        self._leader: Monitor | None = None
        self._listens_when_due: list[str] = []  # hooks of the leader
        self._due = 0
        self._batches_left = 0  # that cannot reach the step that is due
        self._step = -1
        self._asked: dict[Monitor, Asked] = {}
        self._probe: StepProbe | None = None
        self._passing: PassingSteps | None = None
        self._names: Names | None = None
        self._modules: ActivationModules | None = None
        self._steps_before = 0
        self._steps_once_a_batch = False
        self._channel_dims: dict[str, int] = {}
        self._unread = UnreadSteps(trainer, self.members)

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
        shared = cls._of_trainer.setdefault(trainer, cls(trainer))
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
        self._channel_dims = {}
        for layers, dim in [told for member in self.members for told in member.channel_dims.items()]:
            if self._channel_dims.setdefault(layers, dim) != dim:
                raise ValueError(
                    f"channel_dims: two callbacks say different things of {layers!r}: {self._channel_dims[layers]} and "
                    f"{dim}. All look at the same activations."
                )
        module = trainer.lightning_module
        self._steps_once_a_batch = module.automatic_optimization and not is_overridden("optimizer_step", module)
        self._unread.begin(trainer)

    def _listen(self, listens: bool) -> None:
        """Have the leader hear of the next batch's parts, or not."""
        for hook in self._listens_when_due:
            if listens:
                vars(self._leader).pop(hook, None)
            else:
                vars(self._leader)[hook] = None

    def ask(self, monitor: Monitor, asked: Asked, step: int) -> None:
        """`monitor` wants to see the step that begins now."""
        if self._probe is None:
            self._asked[monitor] = asked
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
                wanted |= each.wanted
            if self._names is None:
                self._names, self._modules = Names(pl_module), ActivationModules()
            optimizers = heard_optimizers(trainer.optimizers)
            self._probe = StepProbe(pl_module, optimizers, wanted, self._names, self._modules, self._channel_dims)
            self._steps_before = step
            self._probe.attach()
            self._hear_of_steps(optimizers)

    def _hear_of_steps(self, optimizers: Sequence[Optimizer]) -> None:
        """Listen to the optimizer, where Lightning has it take one step a batch."""
        optimizer = optimizers[0] if len(optimizers) == 1 and self._steps_once_a_batch else None
        if self._passing is not None and self._passing.optimizer is not optimizer:
            self._passing.remove()
            self._passing = None
        if self._passing is None and optimizer is not None:
            self._passing = PassingSteps(optimizer)

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
        """Take what was seen, if the batch brought an optimizer step."""
        if monitor is not self._leader:
            return
        if self._probe is None:
            self._batches_left -= 1
            if self._batches_left > 1:
                self._pass_over(self._batches_left, trainer)
            elif self._batches_left <= 0 and trainer.global_step >= self._due:
                self._listen(True)
            return
        if not self._probe.done and trainer.global_step == self._steps_before:
            return
        self._probe.end()
        self._unread.add(self._step, self._asked, self._probe)
        self._probe, self._asked = None, {}
        left = self._due - trainer.global_step
        self._listen(left <= 0)
        # Counted, for to ask for the step costs as much as all else here: a batch takes one step at most.
        self._batches_left = left if trainer.lightning_module.automatic_optimization else 0
        if self._batches_left > 1:
            self._pass_over(self._batches_left, trainer)
        if not self._unread.can_wait():
            self.read()

    def _pass_over(self, batches: int, trainer: Trainer) -> None:
        """Hear of so many batches from the optimizer, save the last, of whose end the leader hears as ever."""
        leader, passing = self._leader, self._passing
        assert leader is not None
        if passing is None or leader not in trainer.callbacks:  # type: ignore[attr-defined]
            return
        keep = leader.in_passing(passing.loss, batches)
        if keep is not None and trainer.accumulate_grad_batches == 1:
            vars(leader)["on_train_batch_end"] = None
            passing.start(batches, keep, self._pass_no_longer)

    def _pass_no_longer(self) -> None:
        """Have the leader hear of the end of this batch and of all others."""
        assert self._passing is not None
        self._batches_left = self._passing.stop()
        vars(self._leader).pop("on_train_batch_end", None)

    def epoch_starts(self, monitor: Monitor) -> None:
        """Take nothing for granted: what runs between epochs may change how many batches a step has."""
        if monitor is self._leader and self._passing is not None and self._passing.left:
            self._pass_no_longer()

    def read(self) -> None:
        """Publish what was seen and waits, and have it judged."""
        self._unread.read()

    def release(self) -> None:
        """Take the probe off and forget it and the members: training ended, or failed in the middle of a step."""
        if self._probe is not None:
            self._probe.detach()
        leave_what_is_over()
        self._probe, self._asked, self._names, self._modules = None, {}, None, None
        if self._passing is not None:
            self._passing.remove()
            self._passing = None
        self._unread.clear()
        self._leader = None  # Lightning ties a callback to its module, and so to the trainer, which then would stay
        for member in self.members:
            for hook in BATCH_HOOKS:
                vars(member).pop(hook, None)
        self.members.clear()  # the trainer may fit again with other callbacks
