"""A backward pass without what torch does around its engine: that takes a twentieth of a small network's step."""

from functools import cache

import torch
from torch import Tensor
from torch.autograd import Variable


def direct_backward(loss: Tensor) -> None:
    """Do what `loss.backward()` does, bit for bit, for a plain tensor `()`.

    On the processor, left out are the checks of the gradient, and what is for tensors of other classes, for logging the
    nodes of the graph and for the threads of a GPU.
    """
    if loss.device.type != "cpu":
        loss.backward()
        return
    gradient, keep_graph, create_graph, inputs = _one(loss.dtype), False, False, ()
    Variable._execution_engine.run_backward(
        (loss,), (gradient,), keep_graph, create_graph, inputs, allow_unreachable=True, accumulate_grad=True
    )


@cache
def _one(dtype: torch.dtype) -> Tensor:
    return torch.ones((), dtype=dtype, device="cpu")
