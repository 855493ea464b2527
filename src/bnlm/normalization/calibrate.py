"""Running statistics that are exact: those of the whole training set, under the final weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@torch.no_grad()
def calibrate(model: nn.Module, loader: Iterable[Any]) -> None:
    """Set every BatchNorm's running mean and variance to those of its input over all of ``loader``, in place.

    The running statistics of training are an average over past batches, most of them under older weights, and of what
    earlier layers made when they too were normalised by their batch. Here the layers are done one after the other, in
    the order in which a forward calls them, each seeing its input as it will be in eval, when all before it are
    calibrated. So it depends neither on the batch size nor on the order of the examples: in eval on this set, every
    layer normalises to mean 0 and (unbiased) variance 1 exactly. It takes one pass over ``loader`` for each layer,
    which stops at the layer.

    The variance stored is the unbiased one, as in training. ``num_batches_tracked``, all else in the model, and whether
    each module is in training or eval are left as they are. The model runs in eval, so without dropout; layers that the
    forward does not call stay as they are. In a run of several processes each calibrates by what its own ``loader``
    gives.

    Source: Karpathy, makemore part 3 ("calibrate the batch norm at the end of training"); Wu & Johnson 2021, arXiv
    2105.07576, section 3 ("PreciseBN"), who take one pass for all layers and normalise by batches in it: close to this
    for large batches.

    Args:
        model: Holds layers of ours or torch.nn's.
        loader: Batches, the same set of examples each time it is iterated. A batch is the model's input, or a tuple or
            list that begins with it; it is moved to the device of the model's first parameter.
    Raises:
        ValueError: If no layer with running statistics is in the model and called, or ``loader`` can be iterated once
            only, is empty, or gives a layer fewer than 2 values per channel.
    """
    if isinstance(loader, Iterator):
        raise ValueError(f"loader={loader!r}: can be iterated once only; expected a DataLoader, a list of batches, ...")
    layers = {m: path for path, m in model.named_modules() if isinstance(m, _BatchNorm) and m.running_mean is not None}
    if not layers:
        raise ValueError(f"model={type(model).__name__}: has no BatchNorm with running statistics to calibrate.")
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    with _in_eval(model), torch.compiler.set_stance("force_eager"):  # a compiled model calls no new hooks
        order = _in_order_of_calls(model, layers, loader, device)
        if not order:
            raise ValueError(f"model={type(model).__name__}: its forward calls none of {', '.join(layers.values())}.")
        for layer in order:
            _Moments(layer).gather(model, loader, device).store(layers[layer])


class _Stop(Exception):  # not an error: the rest of this forward is not needed
    pass


class _Moments:
    """Count, mean and sum of squared distances of each channel of a layer's input, in float64."""

    def __init__(self, layer: _BatchNorm) -> None:
        self.layer = layer
        self.count = 0
        self.mean = torch.zeros(layer.num_features, dtype=torch.float64)
        self.squares = torch.zeros(layer.num_features, dtype=torch.float64)

    def gather(self, model: nn.Module, loader: Iterable[Any], device: torch.device) -> _Moments:
        def look(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            self.add(inputs[0])
            raise _Stop

        handle = self.layer.register_forward_pre_hook(look)
        try:
            for batch in loader:
                with suppress(_Stop):
                    model(_input_of(batch, device))
        finally:
            handle.remove()
        return self

    def add(self, x: Tensor) -> None:
        """Take in ``(N, C, *)``, or ``(N, *, C)`` as the layer has it (Chan, Golub & LeVeque 1979, equation 2.1)."""
        values = x.movedim(getattr(self.layer, "channel_dim", 1), -1).reshape(-1, self.layer.num_features)
        n = values.size(0)
        if n == 0:
            return
        values = values.to(torch.float64 if values.device.type != "mps" else torch.float32)
        var, mean = (moment.to("cpu", torch.float64) for moment in torch.var_mean(values, 0, correction=0))
        total = self.count + n
        self.squares += var * n + (mean - self.mean).square() * (self.count * n / total)
        self.mean += (mean - self.mean) * (n / total)
        self.count = total

    def store(self, path: str) -> None:
        if self.count < 2:
            raise ValueError(
                f"loader: gives {path or 'the layer'} {self.count} values per channel; a variance needs at least 2."
            )
        assert self.layer.running_mean is not None
        assert self.layer.running_var is not None
        self.layer.running_mean.copy_(self.mean)
        self.layer.running_var.copy_(self.squares / (self.count - 1))


def _in_order_of_calls(
    model: nn.Module, layers: Iterable[_BatchNorm], loader: Iterable[Any], device: torch.device
) -> list[_BatchNorm]:
    order: dict[_BatchNorm, None] = {}
    handles = [layer.register_forward_pre_hook(lambda m, _: order.setdefault(m)) for layer in layers]
    try:
        for batch in loader:
            model(_input_of(batch, device))
            return list(order)
    finally:
        for handle in handles:
            handle.remove()
    raise ValueError(f"loader={loader!r}: is empty; expected at least one batch.")


def _input_of(batch: Any, device: torch.device) -> Any:
    x = batch[0] if isinstance(batch, (tuple, list)) else batch
    return x.to(device) if isinstance(x, Tensor) else x


@contextmanager
def _in_eval(model: nn.Module) -> Iterator[None]:
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
