"""Which initialisation keeps a deep plain network alive, per activation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn

from bnlm.init.initialize import initialize
from bnlm.init.kaiming import kaiming_normal
from bnlm.init.lsuv import lsuv
from bnlm.init.normal import normal
from bnlm.init.orthogonal import orthogonal
from bnlm.init.preview import Preview, preview
from bnlm.init.xavier import xavier_normal

Start = Callable[[nn.Module, Tensor, Generator], object]

STARTS: dict[str, Start] = {
    "normal": lambda model, x, generator: initialize(model, normal, generator=generator),
    "xavier, gain 1": lambda model, x, generator: initialize(model, xavier_normal, gain=1.0, generator=generator),
    "kaiming": lambda model, x, generator: initialize(model, kaiming_normal, generator=generator),
    "orthogonal": lambda model, x, generator: initialize(model, orthogonal, generator=generator),
    "lsuv": lambda model, x, generator: lsuv(model, x, generator=generator),
}
"""The starts that are compared; ``kaiming`` and ``orthogonal`` with the gain of the activation (``auto``)."""


def preview_depth(
    activation: Callable[[], nn.Module],
    start: str,
    depth: int,
    *,
    width: int = 256,
    examples: int = 256,
    seed: int = 0,
) -> Preview:
    """Return the `preview` of ``depth`` layers Linear → activation, ``width`` wide, on standard normal inputs.

    Args:
        start: One of `STARTS`.
        examples: Size of the batch.
        seed: Of the inputs, then the weights.
    Raises:
        ValueError: If there is no such start, or a size is below 1.
    """
    if start not in STARTS:
        raise ValueError(f"start={start!r}: expected one of {'; '.join(STARTS)}.")
    for name, value in (("depth", depth), ("width", width), ("examples", examples)):
        if value < 1:
            raise ValueError(f"{name}={value!r}: expected a whole number of at least 1.")
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(examples, width, generator=generator)
    model = nn.Sequential(*(m for _ in range(depth) for m in (nn.Linear(width, width), activation())))
    STARTS[start](model, x, generator)
    return preview(model, x)
