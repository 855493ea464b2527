"""Runs a model and leaves it as it was."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Give a model back as it was: parameters, gradients, buffers and other tensors of its modules, and their modes.

    So are the random states: torch's, Python's, NumPy's, and those of generators that modules hold. Meanwhile there are
    copies of all tensors. What gets its shape from the first batch keeps it.
    """
    modules = list(model.modules())
    modes = [module.training for module in modules]
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    kept = [(module, _known(module._buffers), _known(vars(module))) for module in modules]
    tensors = [t for _, *holders in kept for held in holders for t in held.values()]
    tensors += [parameter for parameter in model.parameters() if not is_lazy(parameter)]
    values = [(tensor, tensor.detach().clone()) for tensor in tensors]
    generators = [each for module in modules for each in vars(module).values() if isinstance(each, torch.Generator)]
    states = [generator.get_state() for generator in generators]
    of_python, of_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  # what models may draw from
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)  # noqa: NPY002
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
        for parameter, gradient in gradients:
            parameter.grad = gradient
        for module, buffers, others in kept:
            for name in _known(module._buffers):
                module._buffers[name] = buffers.get(name)  # None where the forward has made it
            vars(module).update(others)
        with torch.no_grad():
            for tensor, before in values:
                if not _same(tensor, before):
                    tensor.copy_(before)
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode


def _known(tensors: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return what of these is a tensor that has its shape already."""
    return {name: t for name, t in tensors.items() if isinstance(t, Tensor) and not is_lazy(t)}


def _same(tensor: Tensor, before: Tensor) -> bool:
    """Return whether a tensor has kept its values, as far as these can be compared."""
    return tensor.layout == torch.strided and tensor.equal(before)
