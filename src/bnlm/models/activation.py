"""Activations by their torch.nn name."""

from __future__ import annotations

import difflib

from torch import nn

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "celu": nn.CELU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "hardshrink": nn.Hardshrink,
    "hardsigmoid": nn.Hardsigmoid,
    "hardswish": nn.Hardswish,
    "hardtanh": nn.Hardtanh,
    "identity": nn.Identity,
    "leaky_relu": nn.LeakyReLU,
    "log_sigmoid": nn.LogSigmoid,
    "mish": nn.Mish,
    "prelu": nn.PReLU,
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "rrelu": nn.RReLU,
    "selu": nn.SELU,
    "sigmoid": nn.Sigmoid,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "softshrink": nn.Softshrink,
    "softsign": nn.Softsign,
    "tanh": nn.Tanh,
    "tanhshrink": nn.Tanhshrink,
}
"""torch.nn's elementwise activations that need no argument."""


def activation(name: str) -> nn.Module:
    """Return a new activation module; capitals and underscores do not matter (``leaky_relu``, ``LeakyReLU``).

    Raises:
        ValueError: If torch.nn has no such elementwise activation.
    """
    plain = {key.replace("_", ""): key for key in ACTIVATIONS}
    wanted = str(name).lower().replace("_", "")
    if wanted in plain:
        return ACTIVATIONS[plain[wanted]]()
    close = difflib.get_close_matches(wanted, plain, n=1)
    hint = f" Did you mean {plain[close[0]]}?" if close else ""
    raise ValueError(f"model.activation={name!r}: unknown; choose one of {', '.join(ACTIVATIONS)}.{hint}")
