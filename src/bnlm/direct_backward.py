"""A backward pass without what torch does around its engine: that takes a twentieth of a small network's step."""

from torch import Tensor
from torch.autograd import Variable


def direct_backward(loss: Tensor, one: Tensor) -> None:
    """Do what `loss.backward()` does, bit for bit, for a plain tensor `()` on the processor; `one` is its gradient, 1.

    Left out are the checks of the gradient, and what is for tensors of other classes, for logging each node of the
    graph and for the threads of a GPU.
    """
    # keep_graph, create_graph, inputs
    Variable._execution_engine.run_backward(
        (loss,), (one,), False, False, (), allow_unreachable=True, accumulate_grad=True
    )
