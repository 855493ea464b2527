"""The weights of torch.nn's layers as the separate matrices and kernels that they are."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from bnlm.init.fans import Fans, fans
from bnlm.init.torch_default import torch_default_std

EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
#: Layers that are linear in their weight: a factor on the weight is a factor on the output, apart from the bias.
LINEAR_LAYERS = (nn.Linear, nn.Bilinear, _ConvNd)
RECURRENT = (nn.RNNBase, nn.RNNCellBase)
WEIGHT_LAYERS = (*EMBEDDINGS, *LINEAR_LAYERS, *RECURRENT, nn.MultiheadAttention)
_GATES: dict[type[nn.Module], int] = {nn.LSTM: 4, nn.LSTMCell: 4, nn.GRU: 3, nn.GRUCell: 3}


@dataclass(frozen=True)
class Weight:
    """A parameter that holds one weight, or several of one shape stacked along its first dimension.

    ``fans`` are those of each part, ``built_std`` is the standard deviation that torch.nn itself draws.
    """

    name: str
    parameter: Tensor
    fans: Fans
    built_std: float
    parts: int = 1


def weights_of(module: nn.Module) -> list[Weight]:
    """Return the weights of one torch.nn layer, in the order in which they are registered.

    * Linear ``(out, in)``: fans ``in`` and ``out``. Bilinear ``(out, in1, in2)``: a sum of ``in1 · in2`` products; the
      fan_out is that of the first input, ``out · in2``.
    * Convolution ``(out, in / groups, *kernel)``: one part a group; fan_in ``in / groups · kernel``, fan_out
      ``out / groups · kernel / stride``, as a stride of s lets only every s-th place look at an input.
    * Transposed convolution ``(in, out / groups, *kernel)``: the other way round, fan_in
      ``in / groups · kernel / stride`` and fan_out ``out / groups · kernel``.
    * Embedding: a row is picked, not summed: fan_in 1, fan_out the size of a row.
    * RNN, LSTM, GRU and their cells ``(gates · hidden, in)``: one part a gate.
    * MultiheadAttention: ``in_proj_weight`` is query, key and value stacked. Its ``out_proj`` is a Linear of its own.

    torch.nn.init takes all from the stacked shape: it gives LSTM gates four times their fan_out, transposed
    convolutions their fan_out as fan_in, and counts neither groups (in fan_out) nor strides.
    """
    if isinstance(module, EMBEDDINGS):
        return [Weight("weight", module.weight, (1, module.embedding_dim), 1.0)]
    if isinstance(module, nn.Linear):
        return [Weight("weight", module.weight, fans(module.weight), torch_default_std(module.weight))]
    if isinstance(module, nn.Bilinear):
        built = 1 / math.sqrt(3 * module.in1_features)
        return [Weight("weight", module.weight, fans(module.weight), built)]
    if isinstance(module, _ConvNd):
        return [_convolution(module)]
    if isinstance(module, RECURRENT):
        built = 1 / math.sqrt(3 * module.hidden_size)
        gates = next((count for kind, count in _GATES.items() if isinstance(module, kind)), 1)
        return _stacked(module, lambda name: 1 if name.startswith("weight_hr") else gates, lambda _: built)
    if isinstance(module, nn.MultiheadAttention):
        return _stacked(module, lambda name: 3 if name == "in_proj_weight" else 1, _xavier_std)
    return []


def biases_of(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Return name and value of the biases of one torch.nn layer that are added to what its weights give."""
    if isinstance(module, nn.MultiheadAttention):
        found = [("in_proj_bias", module.in_proj_bias)]  # bias_k and bias_v are further positions, not biases
    else:
        found = [item for item in module.named_parameters(recurse=False) if item[0].startswith("bias")]
    return [(name, bias) for name, bias in found if bias is not None]


def _convolution(module: _ConvNd) -> Weight:
    weight, kernel, stride = module.weight, math.prod(module.kernel_size), math.prod(module.stride)
    gathered, spread = module.in_channels // module.groups * kernel, module.out_channels // module.groups * kernel
    if isinstance(module, _ConvTransposeNd):
        here: Fans = (gathered / stride, spread)
    else:
        here = (gathered, spread / stride)
    return Weight("weight", weight, here, torch_default_std(weight), module.groups)


def _stacked(module: nn.Module, parts: Callable[[str], int], built: Callable[[Tensor], float]) -> list[Weight]:
    found = []
    for name, parameter in module.named_parameters(recurse=False):
        if "weight" in name:
            rows, columns = parameter.shape
            here = (columns, rows // parts(name))
            found.append(Weight(name, parameter, here, built(parameter), parts(name)))
    return found


def _xavier_std(weight: Tensor) -> float:
    return math.sqrt(2 / sum(weight.shape))
