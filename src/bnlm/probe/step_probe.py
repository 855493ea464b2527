"""Observes one optimizer step of any `nn.Module`, then takes itself off."""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from operator import or_
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from bnlm.probe.activation_modules import ActivationModules
from bnlm.probe.activation_tap import ActivationTap, unseen
from bnlm.probe.moment_table import MAX_HELD, MomentTable, reduce_together
from bnlm.probe.names import Names
from bnlm.probe.parameter_tap import ParameterTap
from bnlm.probe.records import StepRecord
from bnlm.probe.reduction import Seen, count

#: What an optimizer lacks whose `__init__` did not call torch's.
_HOOKS = "_optimizer_step_post_hooks"

Hook = TypeVar("Hook", bound=Callable[..., None])


class Wanted(NamedTuple):
    """What is to be looked at; several observers of one step join theirs with `|`."""

    activations: bool = False
    gradients: bool = False
    updates: bool = False
    histograms: bool = False
    maps: bool = False
    losses: bool = False

    def __or__(self, other: "Wanted") -> "Wanted":
        return Wanted(*map(or_, self, other))


def _of_one_step(hook: Hook) -> Hook:
    """Mark a hook that may be passed over once the step that is observed has been taken."""
    hook.needs_every_step = False  # type: ignore[attr-defined]
    return hook


class StepProbe:
    """Watches `root` from `attach` until each of `optimizers` has stepped once, or `detach`.

    Everything before that step belongs to it: several micro-batches are pooled. Works on compiled modules, whose
    compiled code calls nothing that could be seen: the observed step runs eagerly (the others stay compiled).

    Args:
        root: The module; its parameter names and module paths name the results.
        optimizers: Those that train it.
        wanted: What to look at.
        names: Of the root, if they are known already.
        modules: What earlier probes have learnt of the root's activations; None to hear all calls.
        channel_dims: See `ActivationTap`.

    Attributes:
        table: What was seen of tensors.
    """

    def __init__(
        self,
        root: nn.Module,
        optimizers: Sequence[Optimizer],
        wanted: Wanted,
        names: Names | None = None,
        modules: ActivationModules | None = None,
        channel_dims: Mapping[str, int] | None = None,
    ) -> None:
        self.root = root
        self.wanted = wanted
        self._names = Names(root) if names is None else names
        self._tap = (
            ActivationTap(root, wanted.histograms, wanted.maps, wanted.losses, self._names, modules, channel_dims)
            if wanted.activations or wanted.losses
            else None
        )
        self.table = MomentTable() if self._tap is None else self._tap.copies.table
        self._parameters = ParameterTap(self._names, self.table, wanted.histograms and wanted.gradients)
        self._waiting = list(optimizers)
        self._handles: list[RemovableHandle] = []
        self._stance: AbstractContextManager[None] | None = None
        self._gradient_scale: Tensor | None = None
        self._saw_backward = False
        self._record: StepRecord | None = None

    @property
    def done(self) -> bool:
        """Whether every optimizer has stepped."""
        return not self._waiting

    def attach(self) -> None:
        """Start to look, at the beginning of a step; on an error nothing stays behind."""
        try:
            for optimizer in self._waiting:
                self._handles.append(optimizer.register_step_pre_hook(self._before_step))
                self._handles.append(optimizer.register_step_post_hook(self._after_step))
            if self._tap is not None:
                if "torch._dynamo" in sys.modules:  # else nothing can have been compiled, and the import is slow
                    self._stance = torch.compiler.set_stance("force_eager")
                self._tap.attach()
        except BaseException:
            self.detach()
            raise

    def next_forward(self) -> None:
        """A further batch begins while the step is still to come (gradient accumulation)."""
        if self._tap is not None:
            self._tap.next_forward()

    def pause(self) -> None:
        """The forward is over: until the next one begins no activations are looked for."""
        if self._tap is not None:
            self._tap.pause()

    def after_backward(self, gradient_scale: Tensor | None = None) -> None:
        """Read the gradients as they are now: reduced over processes, not clipped.

        Args:
            gradient_scale: The factor that a gradient scaler (fp16) has put on the loss, which is taken out again.
        """
        if self.done:
            return
        self._saw_backward = True
        # A scaler changes its own in place.
        self._gradient_scale = None if gradient_scale is None else gradient_scale.detach().clone()
        self.next_forward()
        with _Aside():
            if self.wanted.gradients:
                self._parameters.read_gradients(self._waiting)

    @_of_one_step
    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if optimizer not in self._waiting:
            return
        has_closure = _has_closure(args, kwargs)  # which has yet to run
        if not has_closure:
            self.pause()
        with _Aside():
            if self.wanted.gradients and not self._saw_backward and not has_closure:  # a plain loss.backward()
                self._parameters.read_gradients([optimizer])
            if self.wanted.gradients or self.wanted.updates:
                self._parameters.read_data(optimizer, moves=self.wanted.updates)

    @_of_one_step
    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if optimizer not in self._waiting:
            return
        with _Aside():
            if self.wanted.gradients and not self._saw_backward and _has_closure(args, kwargs):  # nobody reported it
                self._parameters.read_gradients([optimizer])
            self._parameters.read_updates()
        self._waiting.remove(optimizer)
        if self.done:
            self._take_off()  # the rest of this batch may hold many steps that are not sampled
        else:
            self.next_forward()

    def end(self) -> None:
        """The step is over: take in what is left to be seen of it, and take everything off."""
        self.detach()
        self._parameters.finish(self._waiting)

    @property
    def is_small(self) -> bool:
        """Whether what was seen, and is not yet reduced, may be kept for a while."""
        return self.table.waiting + (0 if self._tap is None else self._tap.copies.waiting) <= MAX_HELD

    def detach(self) -> None:
        """Take everything off, whatever state it is in. May be called twice."""
        self._take_off()
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _take_off(self) -> None:
        # The optimizers' own hooks stay until `detach`: an optimizer that is calling its hooks cannot lose one.
        if self._tap is not None:
            self._tap.detach()
        if self._stance is not None:
            self._stance.__exit__(None, None, None)
            self._stance = None

    def uncounted(self) -> list[Seen]:
        """Hand over what waits to be counted, which probes may do together; see `ActivationCopies.uncounted`."""
        return [] if self._tap is None else self._tap.copies.uncounted()

    def record(self) -> StepRecord:
        """Reduce what was seen, and return it; to be called after `end`."""
        if self._record is None:
            record = StepRecord(sums=self.table.sums()) if self._tap is None else self._tap.record()
            record.shapes = self._parameters.shapes
            if self._parameters.histograms:
                record.histograms["gradients"] = self._parameters.histograms
            if self._gradient_scale is not None:
                _scale_gradients(record, 1 / self._gradient_scale)
            self._record = record
        return self._record


def heard_optimizers(optimizers: Sequence[Optimizer]) -> list[Optimizer]:
    """Return the optimizers whose steps can be heard: of a wrapper that is none of torch's, the one within it.

    Raises:
        ValueError: If there is none.
    """
    if all(_HOOKS in vars(optimizer) for optimizer in optimizers):
        return list(optimizers)
    found = []
    for optimizer in optimizers:
        candidates = [optimizer, *vars(optimizer).values()]
        known = [each for each in candidates if isinstance(each, Optimizer) and hasattr(each, _HOOKS)]
        if not known:
            raise ValueError(
                f"{type(optimizer).__name__} has not been set up as an optimizer of torch, so its steps cannot be "
                "observed: call super().__init__(params, defaults) in its __init__."
            )
        found.append(known[0])
    return found


class _Aside:
    """Within it no mode sees what is called, and no graph is built, in fewer calls than torch's own two."""

    def __enter__(self) -> None:
        self._unseen = unseen()
        self._unseen.__enter__()
        self._builds_graph = torch.is_grad_enabled()
        torch._C._set_grad_enabled(False)

    def __exit__(self, *raised: Any) -> None:
        torch._C._set_grad_enabled(self._builds_graph)
        self._unseen.__exit__(None, None, None)


def _scale_gradients(record: StepRecord, factor: Tensor) -> None:
    for group in ("gradient", "output gradient"):
        if group in record.sums:
            record.sums[group].sums = _scaled(record.sums[group].sums, factor)
    for group in ("gradients", "activation_gradients"):
        for counted in record.histograms.get(group, {}).values():
            counted[:2] *= factor


def _has_closure(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Return whether `optimizer.step` was called, as hooks are told, with a closure that does forward and backward."""
    return any(callable(given) for given in (*args[1:], *kwargs.values()))


def _scaled(sums: Tensor, factor: Tensor) -> Tensor:
    """Return the moment sums `(n, 3)` of `factor * x` from those of x."""
    factor = factor.to(sums.device, sums.dtype).reshape(())
    return sums * torch.stack([torch.ones_like(factor), factor, factor * factor])


def records_of(probes: Sequence[StepProbe]) -> list[StepRecord]:
    """Return the `record` of each of several probes, counted and reduced in the same calls."""
    count([seen for probe in probes for seen in probe.uncounted()])
    reduce_together([probe.table for probe in probes])
    return [probe.record() for probe in probes]
