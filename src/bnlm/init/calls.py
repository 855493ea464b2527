"""Activations as calls (`torch.relu(x)`, `F.gelu(x)`, `x.tanh()`), and what they are as modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_NAMES = """
    celu elu gelu hardshrink hardsigmoid hardswish hardtanh leaky_relu logsigmoid mish prelu relu relu6 rrelu selu
    sigmoid silu softplus softshrink softsign tanh tanhshrink threshold
""".split()


def every_spelling(names: list[str]) -> dict[Callable[..., Any], str]:
    """Return torch's functions of these names with their in-place forms: functional, torch and Tensor method."""
    found: dict[Callable[..., Any], str] = {}
    for name in names:
        for owner in (F, torch, Tensor):
            for spelling in (name, f"{name}_"):
                function = getattr(owner, spelling, None)
                if function is not None:
                    found[function] = name
    return found


#: Every elementwise activation function of torch's -> its name.
ACTIVATION_CALLS = every_spelling(_NAMES) | {torch.special.expit: "sigmoid"}

_FIXED: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "selu": nn.SELU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh}


def as_module(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> nn.Module:
    """Return the torch.nn module that the call of an activation function amounts to, with the call's own parameters."""
    name = ACTIVATION_CALLS[function]
    options = list(args[1:])
    if name in _FIXED:
        return _FIXED[name]()
    if name == "leaky_relu":
        return nn.LeakyReLU(options[0] if options else kwargs.get("negative_slope", 0.01))
    if name == "rrelu":
        lower = options[0] if options else kwargs.get("lower", 1 / 8)
        upper = options[1] if len(options) > 1 else kwargs.get("upper", 1 / 3)
        return nn.RReLU(lower, upper)
    if name == "prelu":
        slopes = options[0] if options else kwargs["weight"]
        module = nn.PReLU(slopes.numel(), dtype=slopes.dtype, device=slopes.device)
        module.weight.data.copy_(slopes.detach().reshape(-1))
        return module
    return ActivationCall(function, options, {key: kwargs[key] for key in kwargs if key not in ("input", "out")})


class ActivationCall(nn.Module):
    """A call of an activation function, without its input."""

    def __init__(self, function: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> None:
        super().__init__()
        self.function, self.args, self.kwargs = function, args, kwargs

    def forward(self, x: Tensor) -> Tensor:
        """Call the function on ``x``, of any shape; returns that shape. In-place functions change ``x``."""
        return self.function(x, *self.args, **self.kwargs)
