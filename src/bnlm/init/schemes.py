"""The schemes that draw one weight, by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from torch import Generator

from bnlm.init.kaiming import kaiming_normal, kaiming_uniform
from bnlm.init.normal import normal
from bnlm.init.orthogonal import orthogonal
from bnlm.init.scaled import scaled
from bnlm.init.weights import Weight
from bnlm.init.xavier import xavier_normal, xavier_uniform

Scheme = Callable[..., float]
"""``scheme(weight, *, gain, fan, generator) -> std``: draws a weight in place, returns the standard deviation wanted.

A scheme without a parameter ``gain`` does not depend on the activation, one without ``fan`` not on the layer's fans."""

SCHEMES: dict[str, Scheme] = {
    "kaiming_normal": kaiming_normal,
    "kaiming_uniform": kaiming_uniform,
    "normal": normal,
    "orthogonal": orthogonal,
    "scaled": scaled,
    "xavier_normal": xavier_normal,
    "xavier_uniform": xavier_uniform,
}


def has_gain(scheme: Scheme) -> bool:
    """Return whether the scheme takes a gain."""
    return "gain" in inspect.signature(scheme).parameters


def draw(weight: Weight, scheme: Scheme, gain: float | None, generator: Generator | None) -> float:
    """Draw every part of ``weight``, each on its own; return the standard deviation that was wanted."""
    options: dict[str, object] = {} if gain is None else {"gain": gain}
    if "fan" in inspect.signature(scheme).parameters:
        options["fan"] = weight.fans
    stds = [scheme(part, generator=generator, **options) for part in weight.parameter.chunk(weight.parts)]
    return stds[0]  # the parts are of one shape
