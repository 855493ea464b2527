"""Which functions of torch are activations, and where the functions of layers put the channels."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_NAMES = """
    celu elu gelu hardshrink hardsigmoid hardswish hardtanh leaky_relu logsigmoid mish prelu relu relu6 rrelu selu
    sigmoid silu softplus softshrink softsign tanh tanhshrink threshold
""".split()


def spellings(names: list[str]) -> frozenset[Callable[..., Any]]:
    """Return what torch has of these names: functional, in torch, or Tensor's method."""
    found = {getattr(owner, name, None) for owner in (F, torch, Tensor) for name in names}
    return frozenset(function for function in found if function is not None)


def _activation_functions() -> dict[Callable[..., Any], str]:
    """Return every spelling torch has of each activation: functional, torch, Tensor method and their in-place forms."""
    functions: dict[Callable[..., Any], str] = {}
    for name in _NAMES:
        for owner in (F, torch, Tensor):
            for spelling in (name, f"{name}_"):
                function = getattr(owner, spelling, None)
                if function is not None:
                    functions[function] = name
    functions[torch.special.expit] = "sigmoid"
    return functions


ACTIVATION_FUNCTIONS = _activation_functions()


def _channel_dims() -> dict[Callable[..., Any], int]:
    """Return where the functions of layers put the channels of what they return."""
    after_batch = "batch_norm instance_norm group_norm conv1d conv2d conv3d"
    after_batch += " conv_transpose1d conv_transpose2d conv_transpose3d"
    last = "linear bilinear embedding layer_norm rms_norm scaled_dot_product_attention"
    found: dict[Callable[..., Any], int] = {}
    for names, dim in ((after_batch, 1), (last, -1)):
        for name in names.split():
            for owner in (F, torch):
                function = getattr(owner, name, None)
                if function is not None:
                    found[function] = dim
    return found


CHANNEL_DIMS = _channel_dims()
#: What leaves the dimensions of a sequence where they are: pooled, cut, padded, taken apart or put together.
RESHAPED = spellings(
    "max_pool1d avg_pool1d adaptive_max_pool1d adaptive_avg_pool1d lp_pool1d interpolate upsample pad cat concat "
    "__getitem__ narrow chunk split tensor_split mean sum amax amin".split()
)
#: Recurrences of torch, and the activation whose outputs are theirs; what comes to it stays within the kernel.
RECURRENCES: dict[Callable[..., Any], str | None] = {
    torch.rnn_tanh: "tanh",
    torch.rnn_relu: "relu",
    torch.lstm: None,
    torch.gru: None,
}
BATCH_NORMS: frozenset[Callable[..., Any]] = frozenset({F.batch_norm, torch.batch_norm})
BACKWARD: frozenset[Callable[..., Any]] = frozenset({Tensor.backward, torch.autograd.backward})


#: Functions of normalizations, by torch's name, and those of layers that have a weight and a bias before them.
NORMS: dict[Callable[..., Any], str] = {
    function: name
    for name in ("batch_norm", "instance_norm", "group_norm", "layer_norm", "rms_norm")
    for function in spellings([name])
}
WEIGHTED = spellings(["linear", *(f"conv{how}{n}d" for how in ("", "_transpose") for n in (1, 2, 3))])
DROPOUTS = spellings("dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout".split())
#: Products and distances: what comes before them is no output, and no part of a loss.
COMBINATIONS = spellings(
    "matmul mm bmm einsum addmm baddbmm mv dot cdist tensordot __matmul__ __rmatmul__ cosine_similarity "
    "pairwise_distance".split()
)
#: What comes before them is an output.
LOSSES = spellings(["kl_div", *(name for name in vars(F) if name.endswith("_loss") and not name.startswith("_"))])
