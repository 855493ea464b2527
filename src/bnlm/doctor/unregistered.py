"""Parameters that a network uses and torch does not know of, for they are in a plain list or set past torch."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from torch import Tensor, nn

#: Lists within lists that are looked into, and what of each: a list of examples is long, one of layers is not.
DEPTH, LENGTH = 3, 1000


def unregistered_parameters(model: nn.Module) -> dict[str, Tensor]:
    """Return those in lists, tuples and dictionaries that are attributes of a module, by where they are: `cells[0].w`.

    Also of a module that `object.__setattr__` has made an attribute, and tensors that are to get a gradient and are no
    parameters.

    What is a parameter of `model` all the same, by another way, is left out, and so is what requires no gradient.
    """
    known = {id(parameter) for parameter in model.parameters()}
    found: dict[int, tuple[str, Tensor]] = {}
    for path, module in model.named_modules():
        for attribute, value in vars(module).items():
            if attribute.startswith("_"):
                continue
            for name, parameter in _within(value, f"{path}.{attribute}" if path else attribute, DEPTH):
                if parameter.requires_grad and id(parameter) not in known:
                    found.setdefault(id(parameter), (name, parameter))
    return dict(found.values())


def _within(value: Any, name: str, depth: int) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        if value.requires_grad and value.is_leaf:
            yield name, value
    elif isinstance(value, nn.Module):
        yield from value.named_parameters(name)
    elif depth and isinstance(value, list | tuple | dict):
        for key, each in islice(dict.items(value) if isinstance(value, dict) else enumerate(value), LENGTH):
            yield from _within(each, f"{name}[{key!r}]", depth - 1)
