"""Finds what follows each layer by watching one forward: the flow of the data, not the order of registration."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from bnlm.init.calls import ACTIVATION_CALLS, as_module, every_spelling
from bnlm.init.layers import FoundLayer, is_normalization
from bnlm.init.untouched import call, untouched
from bnlm.init.weights import weights_of

#: Sums of products: what comes out is a new quantity, whose maker is the layer that gave the weight.
_PRODUCTS = every_spelling(
    """
    linear bilinear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d multi_head_attention_forward
    scaled_dot_product_attention matmul __matmul__ __rmatmul__ mm bmm mv addmm addbmm baddbmm einsum tensordot inner
    rnn_tanh rnn_relu lstm gru rnn_tanh_cell rnn_relu_cell lstm_cell gru_cell
    """.split()
)
#: What comes out has nothing of the scale of what went in; and the rows of an embedding, that nothing follows.
_ENDS = every_spelling("softmax softmin log_softmax gumbel_softmax glu embedding embedding_bag".split())
_unseen = torch._C.DisableTorchFunction


@dataclass(frozen=True)
class _Tag:
    """A tensor is made from this layer's weight, or (``is_output``) by this layer."""

    layer: FoundLayer
    is_output: bool


class Watch(TorchFunctionMode):
    """While entered, finds the normalization and the activation that each layer's output goes through first.

    Tensors are followed through everything elementwise, through reshaping, pooling, dropout, normalizations and
    residual additions, up to the first activation or the next layer.

    Args:
        layers: What to follow. Their normalizations and activations are looked for anew.
        keep: Also keep the tensors: what each layer gave, and what the activation after it made of it.
    """

    def __init__(self, layers: Iterable[FoundLayer], keep: bool = False) -> None:
        super().__init__()
        self.order: dict[FoundLayer, None] = {}  # the layers in the order in which they first worked; a dict as a set
        self.outputs: dict[FoundLayer, Tensor] = {}
        self.activations: dict[FoundLayer, Tensor] = {}
        self.kinds: dict[FoundLayer, str] = {}  # the names of the activations that follow
        self.keep = keep
        layers = list(layers)
        for layer in layers:
            layer.normalization = layer.activation = None
        self._tags: Any = WeakTensorKeyDictionary()
        for layer in {layer.module: layer for layer in reversed(layers)}.values():  # of several names the first
            if not layer.is_embedding:
                for weight in weights_of(layer.module):
                    self._tags[weight.parameter] = self._tags.get(weight.parameter, frozenset()) | {_Tag(layer, False)}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        tags = self._tags_of((args, kwargs))
        output = func(*args, **kwargs)
        if not tags:
            return output
        with _unseen():
            if func in _PRODUCTS:
                self._layers_worked(tags, output)
            elif func in ACTIVATION_CALLS:
                self._activated(tags, as_module(func, args, kwargs), ACTIVATION_CALLS[func], output)
            else:
                self._set(output, frozenset() if func in _ENDS else tags)
        return output

    def normalized(self, module: nn.Module, args: Any, output: Any) -> None:
        """A forward hook of a normalization, whose inside may be a function that no mode sees."""
        with _unseen():
            tags = self._tags_of(args)
            for tag in tags:
                if tag.is_output and tag.layer.normalization is None:
                    tag.layer.normalization = module
            self._set(output, tags)

    def _layers_worked(self, tags: frozenset[_Tag], output: Any) -> None:
        makers = frozenset(_Tag(tag.layer, True) for tag in tags if not tag.is_output)
        self._set(output, makers)
        first = next(_tensors(output), None)
        for maker in sorted(makers, key=lambda tag: tag.layer.name):
            self.order.setdefault(maker.layer)
            if self.keep and first is not None:
                self.outputs.setdefault(maker.layer, first)

    def _activated(self, tags: frozenset[_Tag], activation: nn.Module, kind: str, output: Tensor) -> None:
        for tag in tags:
            if tag.is_output and tag.layer.activation is None:
                tag.layer.activation = activation
                self.kinds[tag.layer] = kind
                if self.keep:
                    self.activations[tag.layer] = output
        self._set(output, frozenset())

    def _tags_of(self, values: Any) -> frozenset[_Tag]:
        found: frozenset[_Tag] = frozenset()
        for tensor in _tensors(values):
            found |= self._tags.get(tensor, frozenset())
        return found

    def _set(self, output: Any, tags: frozenset[_Tag]) -> None:
        for tensor in _tensors(output):
            if tags or tensor in self._tags:
                self._tags[tensor] = tags


@contextmanager
def watching(model: nn.Module, layers: Iterable[FoundLayer], keep: bool = False) -> Iterator[Watch]:
    """Enter a `Watch` over ``model``, with a hook on each normalization; leaves no trace on the model."""
    watch = Watch(layers, keep)
    norms = [module for module in model.modules() if is_normalization(module)]
    handles = [module.register_forward_hook(watch.normalized) for module in norms]
    try:
        with untouched(model), watch:
            yield watch
    finally:
        for handle in handles:
            handle.remove()


def find_followers(model: nn.Module, layers: list[FoundLayer], example: Any) -> list[FoundLayer]:
    """Set what follows each of ``layers`` by one forward on ``example``; return those that worked, in that order.

    A layer that did not work has nothing after it. The model is as before afterwards: its modes, buffers and gradients,
    its hooks, and torch's random state.
    """
    with torch.no_grad(), watching(model, layers) as watch:
        call(model, example)
    return list(watch.order)


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, (tuple, list)):
        for item in values:
            yield from _tensors(item)
    elif isinstance(values, dict):
        yield from _tensors(tuple(values.values()))
