"""Running a model without leaving a trace on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Put ``model`` in training mode; leave its modes, buffers (running statistics) and torch's random state as found.

    Training mode is what is to be judged before training: BatchNorm normalises by the batch and dropout drops. What is
    compiled runs eagerly, as neither hooks nor modes see into compiled code.
    """
    modes = {module: module.training for module in model.modules()}
    buffers = [
        (module, name, buffer, buffer.detach().clone())
        for module in modes
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    devices = sorted({p.get_device() for p in model.parameters() if p.is_cuda})
    with torch.random.fork_rng(devices), ExitStack() as stack:
        if any("_orig_mod" in module._modules or module._compiled_call_impl is not None for module in modes):
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        try:
            model.train()
            yield
        finally:
            for module, training in modes.items():
                module.training = training
            with torch.no_grad():
                for module, name, buffer, before in buffers:
                    module._buffers[name] = buffer  # a forward may have put another tensor in its place
                    buffer.copy_(before)


def call(model: nn.Module, example: Any) -> Any:
    """Return what the model gives for an example: its argument, a tuple of them, or a mapping of its keywords."""
    if isinstance(example, Mapping):
        return model(**example)
    if isinstance(example, (tuple, list)):
        return model(*example)
    return model(example)


def first_tensor(output: Any) -> Tensor | None:
    """Return the first tensor in what a module gave, looking into tuples, lists and mappings."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        output = tuple(output.values())
    if isinstance(output, (tuple, list)):
        return next((found for item in output if (found := first_tensor(item)) is not None), None)
    return None
