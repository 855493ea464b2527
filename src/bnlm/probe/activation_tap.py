"""Sees activations wherever they are: modules (`nn.Tanh`) and calls (`torch.tanh(x)`, `F.relu(x)`, `x.sigmoid()`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from bnlm.probe.activation_copies import ActivationCopies
from bnlm.probe.activation_modules import ActivationModules, Call
from bnlm.probe.backward_pass import BackwardPasses
from bnlm.probe.call_names import CallNames
from bnlm.probe.channel_dims import ChannelDims
from bnlm.probe.cosines import PRODUCTS
from bnlm.probe.hearing import Hearing
from bnlm.probe.listener import Listener
from bnlm.probe.loss_calls import LossCalls
from bnlm.probe.loss_record import LOSS_FUNCTIONS
from bnlm.probe.names import Names
from bnlm.probe.plain_values import copied, values_of
from bnlm.probe.reach import Reach
from bnlm.probe.recomputed import Recomputed
from bnlm.probe.records import StepRecord
from bnlm.probe.torch_functions import (
    ACTIVATION_FUNCTIONS,
    BACKWARD,
    CHANNEL_DIMS,
    COMBINATIONS,
    DROPOUTS,
    LOSSES,
    RECURRENCES,
    RESHAPED,
)
from bnlm.probe.written_loss import WRITTEN
from bnlm.stats import limits_from_call

#: Within it no mode sees what is called: the probe's own work would pass through the tap, call by call.
unseen = torch._C.DisableTorchFunction


class ActivationTap(TorchFunctionMode):
    """While entered, takes in each activation that `root` computes in training mode.

    A layer's name is its module path (`encoder.act`); for a call inside another module that path and the function's
    name (`encoder.tanh`, or `tanh` in the root itself), with `_1`, `_2`, ... for repetitions within one forward.

    Units are channels, see `ChannelDims`.

    Args:
        root: The module whose paths name the layers.
        histograms: Also count histograms of outputs and their gradients.
        maps: Also keep which outputs of bounded activations are flat, `(examples, units)`.
        losses: Also look at what goes into the loss functions, and how much into each BatchNorm.
        names: Of the root, if they are known already.
        modules: What earlier steps have taught of the root's activations; None to hear all calls.
        channel_dims: Of layers, by shell patterns, where it is to be told.
    """

    def __init__(
        self,
        root: nn.Module,
        histograms: bool = False,
        maps: bool = False,
        losses: bool = False,
        names: Names | None = None,
        modules: ActivationModules | None = None,
        channel_dims: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        self.root = root
        self.losses = LossCalls() if losses else None
        self.on = False
        self._record = StepRecord()
        self.copies = ActivationCopies(self._record, histograms, maps)
        self._entered = False
        names = Names(root) if names is None else names
        self._names = CallNames(names)
        self._hand_written = names.hand_written_batch_norms if losses else []
        self._modules = modules
        self._listened: Sequence[Call] = ()
        self._handles: list[RemovableHandle] = []
        self._forwards: list[list[Call | None]] = [[]]
        self._channel_dims = ChannelDims(channel_dims or {})
        self._hearing = Hearing(self._names)
        self._in_forward = False
        self._backward_passes = BackwardPasses(names)
        self._recomputed = Recomputed(self._listening_again)

    def attach(self) -> None:
        """Start to look."""
        self.on = True
        leave_what_is_over()
        if self._modules is not None and self.losses is None:
            self._listened = self._modules.for_next_step()
        for call in self._listened:  # each hook before others, which may change what the module returned
            hook = Listener(self._module_called, call)
            self._handles.append(call.module.register_forward_hook(hook, prepend=True, with_kwargs=True))
        for path, norm in self._hand_written:
            self._handles.append(norm.register_forward_hook(Listener(self._norm_called, path)))
        self._resume()

    def detach(self) -> None:
        """Stop looking; leaves the stack of modes once no other mode lies on top of this one."""
        if self.on and self._modules is not None:
            self._teach(self._modules)
        self.on = False
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self.pause()

    def _teach(self, modules: ActivationModules) -> None:
        if not self._listened:
            modules.learn([calls for calls in self._forwards if calls])
        elif list(self._record.kinds) != [call.layer for call in self._listened]:
            modules.learn([])  # this step went another way

    def pause(self) -> None:
        """See no calls until the next forward begins: each of an optimizer's would cost as much as one of a layer's."""
        self._in_forward = False
        if self._entered:
            stack = torch.overrides._get_current_function_mode_stack()
            if stack and stack[-1] is self:
                self.__exit__(None, None, None)
                self._entered = False

    def _resume(self) -> None:
        self._in_forward = self.on
        if self.on and not self._entered and not self._listened:
            self.__enter__()
            self._entered = True

    def next_forward(self) -> None:
        """A new forward begins: its first tanh is the layer `tanh` again, not `tanh_1`."""
        self._resume()
        self._hearing.next_forward()
        self._forwards.append([])
        if self.losses is not None:
            self.losses.next_forward()
        self._names.next_forward()

    def record(self) -> StepRecord:
        """Reduce what waits, and return all that was seen; to be called once, after `detach`."""
        self.copies.finish()
        self._hearing.next_forward()
        self._record.heard = self._hearing.heard
        if self.losses is not None:
            self._record.losses = self.losses.records()
        return self._record

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        watch, what = _WATCHED.get(func, _UNWATCHED)
        if watch is None or not (self._in_forward or watch is ActivationTap._activation_called):
            return func(*args, **(kwargs or {}))
        return watch(self, func, what, args, kwargs or {})

    def _layer_called(self, func: Callable[..., Any], channel_dim: int, args: Any, kwargs: dict[str, Any]) -> Any:
        if self.losses is not None:
            with unseen():
                self._hearing.layer_called(func, args[0] if args else kwargs.get("input"))
        output = func(*args, **kwargs)
        self._record.called = True
        if self.losses is not None:
            self._hearing.layer_returned(func, output)
        self._multiplied(func, args, kwargs)
        self._channel_dims.returned(output, channel_dim)
        return output

    def _reshaped(self, func: Callable[..., Any], what: None, args: Any, kwargs: dict[str, Any]) -> Any:
        output = func(*args, **kwargs)
        if args:
            with unseen():
                self._channel_dims.kept(args[0], output)
        return output

    def _norm_called(self, path: str, norm: nn.Module, args: Any, output: Any) -> None:
        if self._in_forward and norm.training:
            with unseen():
                self._hearing.norm_returned(path, norm, output)

    def _dropout_called(self, func: Callable[..., Any], what: None, args: Any, kwargs: dict[str, Any]) -> Any:
        if self.losses is not None and self.root.training:
            self._hearing.dropout_called(args, kwargs)
        return func(*args, **kwargs)

    def _combination_called(self, func: Callable[..., Any], what: None, args: Any, kwargs: dict[str, Any]) -> Any:
        self._multiplied(func, args, kwargs)
        return func(*args, **kwargs)

    def _multiplied(self, func: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> None:
        self._hearing.goes_on(func in PRODUCTS)
        if self.losses is not None:
            if func in PRODUCTS:
                self.losses.product.called(func, args, kwargs)
            else:
                self.losses.product.forget()

    def _backward_called(self, func: Callable[..., Any], what: None, args: Any, kwargs: dict[str, Any]) -> Any:
        self._forwards[-1].append(None)  # modules alone would not tell where the next forward begins
        output = func(*args, **kwargs)
        with unseen():
            self.next_forward()
        return output

    def _loss_called(self, func: Callable[..., Any], kind: str | None, args: Any, kwargs: dict[str, Any]) -> Any:
        self._hearing.loss_called()
        output = func(*args, **kwargs)  # first: what it refuses it tells of better than what looks at it would
        if kind is not None and self.losses is not None and self.root.training:
            with unseen():
                self.losses.called(kind, args, kwargs)
        return output

    def _part_of_a_loss_called(self, func: Callable[..., Any], what: None, args: Any, kwargs: dict[str, Any]) -> Any:
        output = self._reshaped(func, what, args, kwargs) if func in RESHAPED else func(*args, **kwargs)
        if self.losses is not None and self.root.training:
            with unseen():
                self.losses.part_called(func, args, kwargs, output)
        return output

    def _activation_called(self, func: Callable[..., Any], kind: str, args: Any, kwargs: dict[str, Any]) -> Any:
        if torch._C._current_graph_task_id() != -1:
            return self._called_again(func(*args, **kwargs))
        if not self._in_forward or not self.root.training:
            return func(*args, **kwargs)
        x = args[0] if args else kwargs["input"]
        values, mapped = values_of(x)
        if values is None:
            return func(*args, **kwargs)
        path, module = self._names.caller()
        named = f"{path}.{kind}".lstrip(".") if module is None else path
        channel_dim = self._channel_dims.of(x, named)
        # Copies: the call may overwrite its input, and the model its output or its gradient.
        pre_activation = copied(values, mapped, channel_dim)
        output = func(*args, **kwargs)
        values, mapped = values_of(output)
        if values is None:
            return output
        layer = self._names.of_next_call(named)
        limits = limits_from_call(kind, args, kwargs)
        alone = module is not None and layer == path and not getattr(module, "inplace", False)
        self._forwards[-1].append(Call(module, layer, kind, channel_dim, limits) if module and alone else None)
        self._hearing.activation_called(layer, kind, x, module is not None)
        self._take_in(layer, kind, pre_activation, values, mapped, channel_dim, limits)
        return output

    @contextmanager
    def _listening_again(self) -> Iterator[None]:
        """In the backward pass a checkpoint computes with a graph: see where its gradients come by, and no more."""
        within, self._in_forward = self._in_forward, False
        try:
            with self if self.on and not self._listened else nullcontext():
                yield
        finally:
            self._in_forward = within

    def _called_again(self, output: Any) -> Any:
        """What activation checkpointing computes again has been seen already, but maybe without a graph."""
        if not self.on:
            return output
        with unseen():
            values, mapped = values_of(output)
            if values is not None and (call := self._recomputed.next_call()) and values.grad_fn is not None:
                self._await_gradient(call[0], values, mapped, call[1])
        return output

    def _recurrence_called(self, func: Callable[..., Any], kind: str | None, args: Any, kwargs: dict[str, Any]) -> Any:
        if self.losses is not None:
            with unseen():
                self._hearing.layer_called(func, args[0])
        outputs = func(*args, **kwargs)
        if kind is not None and self.root.training and torch._C._current_graph_task_id() == -1:
            values, mapped = values_of(outputs[0])
            if values is not None:
                layer = self._names.of_next_call(f"{self._names.caller()[0]}.{kind}".lstrip("."))
                self._forwards[-1].append(None)
                self._take_in(layer, kind, None, values, mapped, outputs[0].ndim - 1, None)
        return outputs

    def _module_called(self, call: Call, module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        if torch._C._current_graph_task_id() != -1:
            self._called_again(output)
        elif self._in_forward and self.root.training:
            with unseen():
                x = args[0] if args else kwargs.get("input")
                before, mapped_before = values_of(x)
                after, mapped = values_of(output)
                if x is None or before is None or after is None:
                    return
                channel_dim = self._channel_dims.within(x, call.channel_dim)
                pre_activation = copied(before, mapped_before, channel_dim)
                layer = self._names.of_next_call(call.layer)
                self._take_in(layer, call.kind, pre_activation, after, mapped, channel_dim, call.limits)

    def _take_in(
        self,
        layer: str,
        kind: str,
        pre_activation: Tensor | None,
        values: Tensor,
        mapped: int | None,
        channel_dim: int,
        limits: tuple[float, float] | None,
    ) -> None:
        """Keep a copy of the output of an activation, and of its gradient once that comes."""
        self.copies.add(layer, kind, pre_activation, values, mapped, channel_dim, limits)
        if self.losses is not None:
            self.losses.reach = Reach.of(kind, values, limits)
        if pre_activation is None:  # a recurrence: the gradient leaves out what comes back through time
            return
        if values.grad_fn is not None:
            self._await_gradient(layer, values, mapped, channel_dim)
        elif not torch.is_grad_enabled():
            self._recomputed.may_come_again(layer, channel_dim)

    def _await_gradient(self, layer: str, values: Tensor, mapped: int | None, channel_dim: int) -> None:
        # A hook on the node costs a third of one on the tensor.
        node, index = values.grad_fn, values.output_nr
        assert node is not None
        node.register_prehook(lambda gradients: self._keep_gradient(layer, gradients[index], mapped, channel_dim))

    def _keep_gradient(self, layer: str, gradient: Tensor | None, mapped: int | None, channel_dim: int) -> None:
        if self.on and gradient is not None and self._backward_passes.is_of_a_loss():
            with unseen():
                self.copies.add_gradient(layer, gradient, mapped, channel_dim)


def leave_what_is_over() -> None:
    """Take taps off torch's stack of modes that could not leave it when they were over: another mode lay on them."""
    while torch._C._len_torch_function_stack():
        tap = torch._C._get_function_stack_at(torch._C._len_torch_function_stack() - 1)
        if not isinstance(tap, ActivationTap) or tap.on or not tap._entered:
            break
        tap.pause()


_UNWATCHED = (None, None)
#: By function of torch: what watches its calls, and what that has to know of it.
_WATCHED: dict[Callable[..., Any], tuple[Callable[..., Any], Any]] = {
    **dict.fromkeys(COMBINATIONS, (ActivationTap._combination_called, None)),
    **dict.fromkeys(LOSSES, (ActivationTap._loss_called, None)),
    **dict.fromkeys(RESHAPED, (ActivationTap._reshaped, None)),
    **dict.fromkeys(WRITTEN, (ActivationTap._part_of_a_loss_called, None)),
    **{function: (ActivationTap._activation_called, kind) for function, kind in ACTIVATION_FUNCTIONS.items()},
    **{function: (ActivationTap._recurrence_called, kind) for function, kind in RECURRENCES.items()},
    **{function: (ActivationTap._layer_called, dim) for function, dim in CHANNEL_DIMS.items()},
    **dict.fromkeys(DROPOUTS, (ActivationTap._dropout_called, None)),
    **{function: (ActivationTap._loss_called, kind) for function, kind in LOSS_FUNCTIONS.items()},
    **dict.fromkeys(BACKWARD, (ActivationTap._backward_called, None)),
}
