"""Sees activations wherever they are: modules (`nn.Tanh`) and calls (`torch.tanh(x)`, `F.relu(x)`, `x.sigmoid()`)."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from bnlm.probe.loss_record import LOSS_FUNCTIONS, LossRecord, loss_record
from bnlm.probe.records import ActivationRecord
from bnlm.probe.reduction import Seen, add_to_records
from bnlm.probe.torch_functions import ACTIVATION_FUNCTIONS, BACKWARD, BATCH_NORMS, CHANNEL_DIMS
from bnlm.stats import bounded, channel_dim_of, limits_from_call

#: Elements of copies that wait to be reduced: together they take fewer calls, but they take memory.
MAX_WAITING = 1 << 21

#: Within it no mode sees what is called: the probe's own work would pass through the tap, call by call.
unseen = torch._C.DisableTorchFunction


class ActivationTap(TorchFunctionMode):
    """While entered, reduces each activation that `root` computes in training mode to an `ActivationRecord`.

    A layer's name is its module path (`encoder.act`); for a call inside another module that path and the function's
    name (`encoder.tanh`, or `tanh` in the root itself), with `_1`, `_2`, ... for repetitions within one forward.

    Units are channels. Where these are is told by the last layer that returned a tensor of the activation's shape:
    dimension 1 after a convolution, BatchNorm or GroupNorm, the last one after a Linear, LayerNorm or an embedding.

    Args:
        root: The module whose paths name the layers.
        histograms: Also count histograms of outputs and their gradients.
        maps: Also keep which outputs of bounded activations are flat, `(examples, units)`.
        losses: Also look at what goes into the loss functions.
    """

    def __init__(self, root: nn.Module, histograms: bool = False, maps: bool = False, losses: bool = False) -> None:
        super().__init__()
        self.outputs: list[LossRecord] | None = [] if losses else None
        self.values_per_channel: dict[str, int] = {}
        self.root = root
        self.histograms = histograms
        self.maps = maps
        self.records: dict[str, ActivationRecord] = {}
        self.on = False
        self._entered = False
        self._handles: list[RemovableHandle] = []
        self._names: dict[int, str] = {}
        self._stack: list[tuple[str, bool]] = []
        self._calls: Counter[str] = Counter()
        self._used: set[str] = set()
        self._channel_dims: dict[torch.Size, int] = {}
        self._seen: list[Seen] = []
        self._gradients: list[tuple[str, Tensor]] = []
        self._waiting = 0  # elements in these two

    def attach(self) -> None:
        """Start to look."""
        compiled = False
        for path, module in self.root.named_modules():
            # torch.compile wraps a module under this name, which its author never wrote.
            parts = [part for part in path.split(".") if part != "_orig_mod"]
            self._names[id(module)] = ".".join(parts)
            compiled = compiled or len(parts) < len(path.split("."))
        if compiled:  # such a wrapper warns of hooks for all modules
            for module in self.root.modules():
                self._handles.append(module.register_forward_pre_hook(self._enter_module))
                self._handles.append(module.register_forward_hook(self._leave_module, always_call=True))
        else:  # two hooks for all modules of the process are cheaper than two for each module
            self._handles.append(register_module_forward_pre_hook(self._enter_module))
            self._handles.append(register_module_forward_hook(self._leave_module, always_call=True))
        self.on = True
        self._resume()

    def detach(self) -> None:
        """Stop looking; leaves the stack of modes once no other mode lies on top of this one."""
        self.on = False
        self._reduce()
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self.pause()

    def pause(self) -> None:
        """See no calls until the next forward begins: each of an optimizer's would cost as much as one of a layer's."""
        if self._entered:
            stack = torch.overrides._get_current_function_mode_stack()
            if stack and stack[-1] is self:
                self.__exit__(None, None, None)
                self._entered = False

    def _resume(self) -> None:
        if self.on and not self._entered:
            self.__enter__()
            self._entered = True

    def next_forward(self) -> None:
        """A new forward begins: its first tanh is the layer `tanh` again, not `tanh_1`."""
        self._reduce()
        self._resume()
        self._calls.clear()
        self._used.clear()
        self._stack.clear()

    def _enter_module(self, module: nn.Module, args: Any) -> None:
        path = self._names.get(id(module))
        if path is None:  # not a part of root: what it calls belongs to the module around it
            self._stack.append((self._stack[-1][0] if self._stack else "", False))
        else:
            self._stack.append((path, type(module).__module__ == nn.Tanh.__module__))

    def _leave_module(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._stack:
            self._stack.pop()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.outputs is not None and func in LOSS_FUNCTIONS and self.root.training:
            with unseen():
                self._record_loss(func, args, kwargs)
        channel_dim = CHANNEL_DIMS.get(func)
        if channel_dim is not None:
            if func in BATCH_NORMS and self._stack:
                x = args[0] if args else kwargs["input"]
                if x.ndim >= 2 and x.shape[1]:
                    self.values_per_channel[self._stack[-1][0]] = x.numel() // x.shape[1]
            output = func(*args, **kwargs)
            if isinstance(output, Tensor):
                self._channel_dims[output.shape] = channel_dim
            return output
        if func in BACKWARD:
            output = func(*args, **kwargs)
            with unseen():
                self.next_forward()
            return output
        kind = ACTIVATION_FUNCTIONS.get(func)
        # Inside a backward pass: activation checkpointing computes again what has been seen already.
        if kind is None or not self.on or not self.root.training or torch._C._current_graph_task_id() != -1:
            return func(*args, **kwargs)
        x = args[0] if args else kwargs["input"]
        values, mapped = _values_of(x)
        if values is None:
            return func(*args, **kwargs)
        channel_dim = self._channel_dims.get(x.shape)
        if channel_dim is None or channel_dim >= x.ndim:
            channel_dim = channel_dim_of(x)
        # Copies: the call may overwrite its input, and the model its output or its gradient.
        pre_activation = _copied(values, mapped, channel_dim)
        output = func(*args, **kwargs)
        values, mapped = _values_of(output)
        if values is None:
            return output
        layer = self._layer(kind)
        seen = _copied(values, mapped, channel_dim)
        of_units = _behind(channel_dim, mapped)
        self._seen.append(Seen(layer, kind, pre_activation, seen, of_units, limits_from_call(kind, args, kwargs)))
        if values.requires_grad:
            values.register_hook(lambda gradient: self._keep_gradient(layer, gradient, mapped, channel_dim))
        self._wait(2 * seen.numel())
        return output

    def _keep_gradient(self, layer: str, gradient: Tensor, mapped: int | None, channel_dim: int) -> None:
        if self.on:
            with unseen():
                seen = _copied(gradient, mapped, channel_dim)
                self._gradients.append((layer, seen))
                self._wait(seen.numel())

    def _record_loss(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        assert self.outputs is not None
        given = dict(zip(("input", "target"), args, strict=False)) | kwargs
        record = loss_record(LOSS_FUNCTIONS[func], given["input"], given["target"], given.get("ignore_index", -100))
        if record is not None:
            self.outputs.append(record)

    def _wait(self, elements: int) -> None:
        self._waiting += elements
        if self._waiting > MAX_WAITING:
            self._reduce()

    def _reduce(self) -> None:
        """Pool into the records what was seen since the last time."""
        seen, gradients = self._seen, self._gradients
        self._seen, self._gradients, self._waiting = [], [], 0
        if seen or gradients:
            add_to_records(self.records, seen, gradients, self.histograms, self.maps)

    def _layer(self, kind: str) -> str:
        path, is_activation_module = self._stack[-1] if self._stack else ("", False)
        layer = path if is_activation_module else f"{path}.{kind}".lstrip(".")
        while True:
            call = self._calls[layer]
            self._calls[layer] += 1
            name = f"{layer}_{call}" if call else layer
            if name not in self._used:  # `act_1` may be a module of its own, beside `act` called twice
                self._used.add(name)
                return name


def _values_of(x: Any) -> tuple[Tensor | None, int | None]:
    """Return the plain tensor behind `x`, and the dimension that `torch.vmap` maps over, if it does.

    None for what is no strided tensor of real numbers, or empty, or in a transform of another kind (or two of them).
    """
    dim = None
    if isinstance(x, Tensor) and torch._C._functorch.is_batchedtensor(x):
        dim, x = torch._C._functorch.maybe_get_bdim(x), torch._C._functorch.get_unwrapped(x)
    usable = (
        isinstance(x, Tensor)
        and x.is_floating_point()
        and x.layout == torch.strided
        and x.numel() > 0
        and not torch._C._functorch.is_functorch_wrapped_tensor(x)
    )
    return (x, dim) if usable else (None, None)


def _behind(channel_dim: int, mapped: int | None) -> int:
    """Return where the channels are once the dimension that `vmap` maps over stands in front."""
    return channel_dim if mapped is None or channel_dim < 0 else channel_dim + 1


def _copied(values: Tensor, mapped: int | None, channel_dim: int) -> Tensor:
    """Return a copy of `values` (slices of large ones), with the dimension that `vmap` maps over in front."""
    if mapped is not None:
        values = values.movedim(mapped, 0)
    return bounded(values.detach(), _behind(channel_dim, mapped)).clone()
