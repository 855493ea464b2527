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
from bnlm.probe.records import ParameterRecord, StepRecord
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

    Everything before that step belongs to it: several micro-batches are pooled. Works on compiled modules: hooks put on
    one that is compiled already would never fire, so the observed step runs eagerly (the others stay compiled).

    Args:
        root: The module; its parameter names and module paths name the results.
        optimizers: Those that train it.
        wanted: What to look at.
    """

    def __init__(self, root: nn.Module, optimizers: Sequence[Optimizer], wanted: Wanted) -> None:
        self.root = root
        self.wanted = wanted
        self.record = StepRecord()
        self._tap = (
            ActivationTap(root, wanted.histograms, wanted.maps, wanted.losses)
            if wanted.activations or wanted.losses
            else None
        )
        self._waiting = list(optimizers)
        self._handles: list[RemovableHandle] = []
        self._stance: AbstractContextManager[None] | None = None
        self._before: list[tuple[str, nn.Parameter, Tensor]] = []  # of the optimizer that is stepping
        self._gradient_scale: Tensor | None = None
        self._saw_backward = False
        self._named: list[tuple[str, nn.Parameter]] | None = None  # to walk through all modules takes its time

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
        self._gradient_scale = gradient_scale
        with unseen():
            self.next_forward()
            if self.wanted.gradients:
                self._read_gradients(self._parameters(self._waiting), gradient_scale)

    @torch.no_grad()
    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if optimizer not in self._waiting:
            return
        has_closure = _has_closure(args, kwargs)  # which has yet to run
        if not has_closure:
            self.pause()
        with unseen():
            parameters = self._parameters([optimizer])
            if self.wanted.gradients and not self._saw_backward and not has_closure:  # a plain loss.backward()
                self._read_gradients(parameters, None)
            if self.wanted.updates or (self.wanted.gradients and has_closure):
                self._before = [(name, parameter, parameter.detach().clone()) for name, parameter in parameters]

    @torch.no_grad()
    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if optimizer not in self._waiting:
            return
        with unseen():
            self._read_data([(name, before) for name, _, before in self._before])
            if self.wanted.gradients and not self._saw_backward and _has_closure(args, kwargs):  # nobody reported it
                self._read_gradients(self._parameters([optimizer]), None)
            if self.wanted.updates and self._before:
                before, after = [b for _, _, b in self._before], [p for _, p, _ in self._before]
                for (name, _, _), sums in zip(self._before, moment_sums_of(after, minus=before).unbind(), strict=True):
                    self.record.parameters[name].update = sums
            self._before = []
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
        self._before = []

    def _take_off(self) -> None:
        # The optimizers' own hooks stay until `detach`: an optimizer that is calling its hooks cannot lose one.
        if self._tap is not None:
            self._tap.detach()
            self._unscale_activation_gradients()
            self.record.activations = self._tap.records
            self.record.losses = self._tap.outputs or []
            self.record.values_per_channel = self._tap.values_per_channel
        if self._stance is not None:
            self._stance.__exit__(None, None, None)
            self._stance = None

    def _unscale_activation_gradients(self) -> None:
        assert self._tap is not None
        if self._gradient_scale is None:
            return
        for record in self._tap.records.values():
            if record.gradient is not None:
                record.gradient = _scaled(record.gradient, 1 / self._gradient_scale)
            if record.gradient_histogram is not None:
                record.gradient_histogram[:2] /= self._gradient_scale
        self._gradient_scale = None

    def _parameters(self, optimizers: Sequence[Optimizer]) -> list[tuple[str, nn.Parameter]]:
        """Return the named parameters of `root` that these optimizers train."""
        if self._named is None:
            self._named = [(_plain(name), p) for name, p in self.root.named_parameters()]
        held = {id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
        return [named for named in self._named if id(named[1]) in held]

    def _read_data(self, parameters: Sequence[tuple[str, Tensor]]) -> None:
        """Make the parameters' records, at their first use: before the step that they are compared with."""
        new = [(name, data) for name, data in parameters if name not in self.record.parameters]
        if new:
            for (name, data), sums in zip(new, moment_sums_of([x for _, x in new]).unbind(), strict=True):
                self.record.parameters[name] = ParameterRecord(data.shape, sums)

    def _read_gradients(self, parameters: Sequence[tuple[str, nn.Parameter]], scale: Tensor | None) -> None:
        """Read the gradients, and in the same call the parameters that they belong to where these are unread."""
        there = [(name, p, p.grad) for name, p in parameters if p.grad is not None]
        for name, parameter in parameters:  # one from another backward pass, which `zero_grad` has taken away since
            if parameter.grad is None and name in self.record.parameters:
                record = self.record.parameters[name]
                record.gradient = record.gradient_histogram = None
        if not there:
            return
        new = [(name, p) for name, p, _ in there if name not in self.record.parameters]
        gradients = [g.to_dense() if g.is_sparse else g for _, _, g in there]
        sums = moment_sums_of([*gradients, *(data for _, data in new)]).unbind()
        for (name, data), of_data in zip(new, sums[len(there) :], strict=True):
            self.record.parameters[name] = ParameterRecord(data.shape, of_data)
        for (name, _, _), gradient, of_gradient in zip(there, gradients, sums, strict=False):
            record = self.record.parameters[name]
            record.gradient = of_gradient if scale is None else _scaled(of_gradient, 1 / scale)
            if self.wanted.histograms:
                record.gradient_histogram = histogram(gradient)
                if scale is not None:
                    record.gradient_histogram[:2] /= scale


def _has_closure(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Return whether `optimizer.step` was called, as hooks are told, with a closure that does forward and backward."""
    return any(callable(given) for given in (*args[1:], *kwargs.values()))


def _scaled(sums: Tensor, factor: Tensor) -> Tensor:
    """Return the moment sums of `factor * x` from those of x."""
    factor = factor.to(sums.dtype)
    return sums * torch.stack([torch.ones_like(factor), factor, factor * factor]).reshape(3)


def _plain(name: str) -> str:
    return name.replace("_orig_mod.", "")
