"""What the calls of a forward pass tell of a network, beside what they return."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from bnlm.probe.call_names import CallNames
from bnlm.probe.hand_written_norms import by_channel, centres, statistics_of
from bnlm.probe.plain_values import values_of
from bnlm.probe.records import Heard
from bnlm.probe.torch_functions import BATCH_NORMS, NORMS, WEIGHTED
from bnlm.stats import bounded


class Hearing:
    """Takes in calls in their order.

    Args:
        names: Of the network.

    Attributes:
        heard: What they tell.
    """

    def __init__(self, names: CallNames) -> None:
        self.heard = Heard()
        self._names = names
        self._begins = True  # no layer has been called in this forward
        self._last: tuple[str, Any] = "", None  # path and output of the last layer with a weight
        self._tail: list[tuple[str, str]] = []  # sigmoids, and calls of rectifiers, that nothing has followed yet

    def layer_called(self, func: Callable[..., Any], x: Any) -> None:
        """A layer's function is called with `x`; None of one that names its inputs otherwise, as attention does."""
        if func in NORMS and x is not None and x is self._last[1]:
            self.heard.normalized[self._last[0]] = NORMS[func]
        if func in BATCH_NORMS:
            if x.ndim >= 2 and x.shape[1]:
                self.heard.values_per_channel[self._names.caller()[0]] = x.numel() // x.shape[1]
        elif self._begins:
            self._begins = False
            values, _ = values_of(x)
            if values is not None and values.numel() > 1:
                self.heard.input_std = float(bounded(values.detach(), values.ndim - 1).float().std())
            if values is not None and not bool(values.any()):
                self.heard.blank = self._names.caller()[0]

    def layer_returned(self, func: Callable[..., Any], output: Any) -> None:
        """A layer's function has returned `output`."""
        self._last = (self._names.caller()[0], output) if func in WEIGHTED else ("", None)

    def norm_returned(self, path: str, norm: nn.Module, output: Any) -> None:
        """What may be a BatchNorm that calls no function of torch's for it has returned `output`."""
        statistics = statistics_of(norm) if path not in self.heard.values_per_channel else None
        values = None if statistics is None else by_channel(output, len(statistics[0]))
        if values is not None and centres(values):
            self.heard.values_per_channel[path] = len(values)

    def dropout_called(self, args: Any, kwargs: dict[str, Any]) -> None:
        """A dropout is called, which does nothing where it is not training."""
        given = dict(zip(("input", "p", "training"), args, strict=False)) | kwargs
        if given.get("training", True):
            self.heard.dropouts[self._names.caller()[0] or "dropout"] = given.get("p", 0.5)

    def activation_called(self, layer: str, kind: str, x: Any, by_module: bool) -> None:
        """An activation is called with `x`, a module or a function."""
        if kind == "sigmoid" or (kind == "relu" and not by_module):
            self._tail.append((layer, kind))
        if isinstance(x, nn.Parameter):  # which is kept in a range
            self.heard.aside.add(layer)
        if kind == "relu" and not by_module and (x.ndim < 2 or x.shape[-1] == 1):  # a hinge, of one score an example
            self.heard.aside.add(layer)

    def goes_on(self, multiplied: bool = False) -> None:
        """What was called so far is followed by a layer or a product: no output, and no part of a loss."""
        self._tail.clear()
        if multiplied:  # what the next layer gets has been through weights already
            self._begins = False

    def loss_called(self) -> None:
        """What was called so far is what a loss function compares with the targets."""
        self.heard.outputs |= {layer for layer, kind in self._tail if kind == "sigmoid"}
        self._tail.clear()

    def next_forward(self) -> None:
        """The forward is over: a rectifier that only the loss has followed, and no loss function, is a part of it."""
        self.heard.aside |= {layer for layer, kind in self._tail if kind == "relu"}
        self.loss_called()
        self._begins = True
        self._last = "", None
