"""Sees activations wherever they are: modules (`nn.Tanh`) and calls (`torch.tanh(x)`, `F.relu(x)`, `x.sigmoid()`)."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from bnlm.probe.loss_record import LOSS_FUNCTIONS, LossRecord, loss_record
from bnlm.probe.records import ActivationRecord
from bnlm.probe.torch_functions import ACTIVATION_FUNCTIONS, BACKWARD, BATCH_NORMS, CHANNEL_DIMS
from bnlm.stats import (
    BOUNDED,
    MAX_ELEMENTS,
    bounded,
    can_die,
    channel_dim_of,
    flat,
    histogram,
    limits_from_call,
    moment_sums_of,
    pooled,
)

#: The largest picture of which outputs are flat: examples x units.
MAP_EXAMPLES, MAP_UNITS = 64, 512
#: Elements of copies that wait to be reduced: together they take fewer calls, but they take memory.
MAX_WAITING = 1 << 21

#: Within it no mode sees what is called: the probe's own work would pass through the tap, call by call.
unseen = torch._C.DisableTorchFunction


@dataclass
class _Seen:
    """Copies of one call's input and output (slices of large ones), not yet reduced."""

    layer: str
    kind: str
    input: Tensor
    output: Tensor
    channel_dim: int
    limits: tuple[float, float] | None


#: Of an `ActivationRecord`: `flat`, `responded` and `flat_map`.
_FlatAndUnits = tuple[Tensor | None, Tensor | None, Tensor | None]


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
        self._seen: list[_Seen] = []
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
        self._seen.append(_Seen(layer, kind, pre_activation, seen, of_units, limits_from_call(kind, args, kwargs)))
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

    @torch.no_grad()
    def _reduce(self) -> None:
        """Pool into the records what was seen since the last time."""
        seen, gradients = self._seen, self._gradients
        self._seen, self._gradients, self._waiting = [], [], 0
        waiting = [*(s.output for s in seen), *(s.input for s in seen), *(gradient for _, gradient in gradients)]
        if not waiting:
            return
        sums = moment_sums_of(waiting)
        rows = sums.unbind()
        flat_and_units = self._flat_and_units(seen, sums)
        for index, each in enumerate(seen):
            record = ActivationRecord(each.kind, rows[index], rows[len(seen) + index])
            record.flat, record.responded, record.flat_map = flat_and_units.get(index, (None, None, None))
            if each.layer in self.records:
                self.records[each.layer].add(record)
            else:
                if self.histograms:
                    record.histogram = histogram(each.output)
                self.records[each.layer] = record
        for (layer, gradient), of_gradient in zip(gradients, rows[2 * len(seen) :], strict=True):
            record = self.records[layer]
            if record.gradient is None:
                record.gradient = of_gradient
                if self.histograms:
                    record.gradient_histogram = histogram(gradient)
            else:
                record.gradient = pooled(record.gradient, of_gradient)

    def _flat_and_units(self, seen: list[_Seen], sums: Tensor) -> dict[int, _FlatAndUnits]:
        """Return `flat`, `responded` and `flat_map` of the records by index, together where layers are alike."""
        alike: dict[Any, list[int]] = {}
        for index, each in enumerate(seen):
            if each.kind in BOUNDED or (can_die(each.kind) and each.output.ndim >= 2):
                output = each.output
                key = (each.kind, output.shape, each.channel_dim, each.limits, output.dtype, output.device)
                alike.setdefault(key, []).append(index)
        found: dict[int, _FlatAndUnits] = {}
        for (kind, shape, channel_dim, limits, *_), indices in alike.items():
            outputs = torch.stack([seen[index].output for index in indices])
            has_units = len(shape) >= 2  # `(N,)` and `()` have no dimension of units
            of_units = channel_dim + 1 if channel_dim >= 0 else channel_dim
            if kind not in BOUNDED:
                responded = (outputs > 0).movedim(of_units, -1).reshape(len(indices), -1, shape[channel_dim]).any(dim=1)
                found |= {index: (None, each, None) for index, each in zip(indices, responded.unbind(), strict=True)}
                continue
            on_flat = flat(kind, outputs, limits)
            count = on_flat.flatten(1).sum(dim=1) if len(shape) else on_flat
            counts = torch.stack([count.to(sums.device, sums.dtype), sums[indices, 0]], dim=1).unbind()
            if not has_units:
                found |= {index: (each, None, None) for index, each in zip(indices, counts, strict=True)}
                continue
            units = on_flat.movedim(of_units, -1).reshape(len(indices), -1, shape[channel_dim])
            responded = ~units.all(dim=1)
            for position, index in enumerate(indices):
                flat_map = units[position, :MAP_EXAMPLES, :MAP_UNITS] if self.maps else None
                found[index] = counts[position], responded[position], flat_map
        return found

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
    if mapped is None and values.numel() <= MAX_ELEMENTS:
        return values.detach().clone()
    if mapped is not None:
        values = values.movedim(mapped, 0)
    return bounded(values.detach(), _behind(channel_dim, mapped)).clone()
