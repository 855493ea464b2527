"""Observes one optimizer step of any `nn.Module`, then takes itself off."""

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from bnlm.probe.activation_tap import ActivationTap, unseen
from bnlm.probe.moment_table import Flat, MomentTable, Sums, joined_copy
from bnlm.probe.names import Names
from bnlm.probe.records import StepRecord
from bnlm.stats import histogram, moment_sums_of


@dataclass(frozen=True)
class Wanted:
    """What is to be looked at; several observers of one step join theirs with `|`."""

    activations: bool = False
    gradients: bool = False
    updates: bool = False
    histograms: bool = False
    maps: bool = False
    losses: bool = False

    def __or__(self, other: "Wanted") -> "Wanted":
        return Wanted(
            self.activations or other.activations,
            self.gradients or other.gradients,
            self.updates or other.updates,
            self.histograms or other.histograms,
            self.maps or other.maps,
            self.losses or other.losses,
        )


class StepProbe:
    """Watches `root` from `attach` until each of `optimizers` has stepped once, or `detach`.

    Everything before that step belongs to it: several micro-batches are pooled. Works on compiled modules, whose
    compiled code calls nothing that could be seen: the observed step runs eagerly (the others stay compiled).

    Args:
        root: The module; its parameter names and module paths name the results.
        optimizers: Those that train it.
        wanted: What to look at.
        names: Of the root, if they are known already.
    """

    def __init__(
        self, root: nn.Module, optimizers: Sequence[Optimizer], wanted: Wanted, names: Names | None = None
    ) -> None:
        self.root = root
        self.wanted = wanted
        self._names = Names(root) if names is None else names
        self._tap = (
            ActivationTap(root, wanted.histograms, wanted.maps, wanted.losses, self._names)
            if wanted.activations or wanted.losses
            else None
        )
        self._table = MomentTable() if self._tap is None else self._tap.table
        self._shapes: dict[str, torch.Size] = {}
        self._histograms: dict[str, Tensor] = {}
        self._graded: set[str] = set()  # parameters with a gradient
        self._with_data: set[str] = set()
        self._optimizers = list(optimizers)
        self._waiting = list(optimizers)
        self._handles: list[RemovableHandle] = []
        self._stance: AbstractContextManager[None] | None = None
        self._before: Flat | list[Tensor] | None = None  # the parameters of the optimizer that is stepping
        self._gradient_scale: Tensor | None = None
        self._saw_backward = False

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

    @torch.no_grad()
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
        with unseen():
            self.next_forward()
            if self.wanted.gradients:
                self._read_gradients(self._names.trained_by(self._waiting))

    @torch.no_grad()
    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if optimizer not in self._waiting:
            return
        has_closure = _has_closure(args, kwargs)  # which has yet to run
        if not has_closure:
            self.pause()
        if not (self.wanted.gradients or self.wanted.updates):
            return
        with unseen():
            parameters = self._names.trained_by([optimizer])
            if self.wanted.gradients and not self._saw_backward and not has_closure:  # a plain loss.backward()
                self._read_gradients(parameters)
            names, tensors = [name for name, _ in parameters], [p.detach() for _, p in parameters]
            if not self.wanted.updates:
                self._table.add_all("data", names, tensors)
            elif names:
                self._shapes |= {name: p.shape for name, p in parameters}
                self._before = joined_copy(tensors) or [p.clone() for p in tensors]
                if isinstance(self._before, Flat):
                    self._table.add("data", names, self._before)
                else:
                    self._table.add_all("data", names, self._before)
            self._with_data.update(names)

    @torch.no_grad()
    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if optimizer not in self._waiting:
            return
        with unseen():
            parameters = self._names.trained_by([optimizer])
            if self.wanted.gradients and not self._saw_backward and _has_closure(args, kwargs):  # nobody reported it
                self._read_gradients(parameters)
            if self._before is not None:
                self._read_updates(parameters, self._before)
            self._before = None
        self._waiting.remove(optimizer)
        if self.done:
            self._take_off()  # the rest of this batch may hold many steps that are not sampled
        else:
            self.next_forward()

    def detach(self) -> None:
        """Take everything off, whatever state it is in. May be called twice."""
        self._take_off()
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._before = None

    def _take_off(self) -> None:
        # The optimizers' own hooks stay until `detach`: an optimizer that is calling its hooks cannot lose one.
        if self._tap is not None:
            self._tap.detach()
        if self._stance is not None:
            self._stance.__exit__(None, None, None)
            self._stance = None

    @torch.no_grad()
    def record(self) -> StepRecord:
        """Reduce what was seen, and return it; to be called once, after `detach`."""
        self._read_data(self._graded - self._with_data)  # of an optimizer that did not step: a scaler held it back
        record = StepRecord(sums=self._table.sums()) if self._tap is None else self._tap.record()
        record.shapes = self._shapes
        if self._histograms:
            record.histograms["gradients"] = self._histograms
        if self._gradient_scale is not None:
            for group in ("gradient", "output gradient"):
                if group in record.sums:
                    record.sums[group].sums = _scaled(record.sums[group].sums, 1 / self._gradient_scale)
            for group in ("gradients", "activation_gradients"):
                for counted in record.histograms.get(group, {}).values():
                    counted[:2] /= self._gradient_scale
        return record

    def _read_gradients(self, parameters: Sequence[tuple[str, nn.Parameter]]) -> None:
        there = {name: p.grad for name, p in parameters if p.grad is not None}
        names = [name for name, _ in parameters]  # one without may have had one from another backward pass
        self._table.forget("gradient", names)
        self._graded = self._graded.difference(names).union(there)
        self._shapes |= {name: p.shape for name, p in parameters if name in there}
        gradients = [g.to_dense() if g.is_sparse else g for g in there.values()]
        self._table.add_all("gradient", list(there), gradients)
        if self.wanted.histograms:
            for name in names:
                self._histograms.pop(name, None)
            self._histograms |= {name: histogram(g) for name, g in zip(there, gradients, strict=True)}

    def _read_updates(self, parameters: Sequence[tuple[str, nn.Parameter]], before: Flat | list[Tensor]) -> None:
        names, tensors = [name for name, _ in parameters], [p.detach() for _, p in parameters]
        exact = isinstance(before, Flat) and before.values.dtype in (torch.float32, torch.float64)
        after = joined_copy(tensors) if exact else None  # bfloat16 would round small steps away
        if isinstance(before, Flat) and after is not None:
            self._table.add("update", names, Flat(after.values.sub_(before.values), after.counts))
            return
        parts = list(before.values.split(before.counts)) if isinstance(before, Flat) else before
        flat = [t.reshape(b.shape) for t, b in zip(tensors, parts, strict=True)]
        self._table.add_sums("update", Sums(names, moment_sums_of(flat, minus=parts)))

    def _read_data(self, names: set[str]) -> None:
        if names:
            there = {name: p.detach() for name, p in self._names.trained_by(self._optimizers) if name in names}
            self._table.add_all("data", list(there), list(there.values()))


def _has_closure(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Return whether `optimizer.step` was called, as hooks are told, with a closure that does forward and backward."""
    return any(callable(given) for given in (*args[1:], *kwargs.values()))


def _scaled(sums: Tensor, factor: Tensor) -> Tensor:
    """Return the moment sums `(n, 3)` of `factor * x` from those of x."""
    factor = factor.to(sums.device, sums.dtype).reshape(())
    return sums * torch.stack([torch.ones_like(factor), factor, factor * factor])
