"""Finds the layers of a model that have a weight to draw, and what follows each by the order of registration."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from bnlm.init.weights import EMBEDDINGS, LINEAR_LAYERS, WEIGHT_LAYERS

_NORMALIZATIONS = (_BatchNorm, _InstanceNorm, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
_ACTIVATIONS = (
    nn.CELU,
    nn.ELU,
    nn.GELU,
    nn.Hardshrink,
    nn.Hardsigmoid,
    nn.Hardswish,
    nn.Hardtanh,
    nn.LeakyReLU,
    nn.LogSigmoid,
    nn.Mish,
    nn.PReLU,
    nn.ReLU,
    nn.RReLU,
    nn.SELU,
    nn.SiLU,
    nn.Sigmoid,
    nn.Softplus,
    nn.Softshrink,
    nn.Softsign,
    nn.Tanh,
    nn.Tanhshrink,
    nn.Threshold,
)


@dataclass(eq=False)
class FoundLayer:
    """A layer with weights, and the normalization and the activation that follow it, if any."""

    name: str
    module: nn.Module
    normalization: nn.Module | None = None
    activation: nn.Module | None = None

    @property
    def is_embedding(self) -> bool:
        """Whether it looks rows up instead of adding products."""
        return isinstance(self.module, EMBEDDINGS)

    @property
    def is_linear(self) -> bool:
        """Whether its output is proportional to its weight: Linear, Bilinear or any convolution."""
        return isinstance(self.module, LINEAR_LAYERS)


def find_layers(model: nn.Module) -> list[FoundLayer]:
    """Return the model's layers in the order in which they are registered.

    What follows a layer is the first normalization and the first torch.nn activation registered after it and before the
    next one; nothing follows an embedding. A module that is registered several times counts at each of its places, so
    one `nn.Tanh` may serve many layers. Functional activations are not seen: for these, see `bnlm.init.watch`.
    """
    found: list[FoundLayer] = []
    current: FoundLayer | None = None
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, EMBEDDINGS):
            found.append(FoundLayer(name, module))
        elif isinstance(module, WEIGHT_LAYERS):
            current = FoundLayer(name, module)
            found.append(current)
        elif current is None:
            continue
        elif is_normalization(module):
            current.normalization = current.normalization or module
        elif isinstance(module, _ACTIVATIONS):
            current.activation = current.activation or module
    return found


def is_normalization(module: nn.Module) -> bool:
    """Return whether ``module`` is one of torch.nn's normalizations, or says that it is one.

    A layer says so by having the class attribute ``makes_bias_redundant``, whatever its value.
    """
    return isinstance(module, _NORMALIZATIONS) or hasattr(type(module), "makes_bias_redundant")
