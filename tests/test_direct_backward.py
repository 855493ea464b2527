"""The engine called by itself gives the gradients of `Tensor.backward`, bit for bit."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from bnlm.direct_backward import direct_backward


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Embedding(9, 4), nn.Flatten(), nn.Linear(12, 7), nn.BatchNorm1d(7), nn.Tanh(), nn.Linear(7, 9)
    )


def gradients(backward: Callable[[Tensor], object]) -> list[Tensor]:
    """Of two losses, whose gradients add up; the last layer's weights take no part in the second."""
    model, heard = network(), list[Tensor]()
    model[3].bias.register_hook(heard.append)
    model[0].weight.register_post_accumulate_grad_hook(lambda p: heard.append(p.grad.clone()))
    for seed in range(2):
        x = torch.randint(9, (6, 3), generator=torch.Generator().manual_seed(seed))
        y = model if seed == 0 else model[:-1]
        backward(nn.functional.cross_entropy(y(x), x[:, 0] % 7))
    assert len(heard) == 4
    return [*(p.grad for p in model.parameters() if p.grad is not None), *heard]


def test_gradients_are_those_of_backward() -> None:
    theirs, ours = gradients(lambda loss: loss.backward()), gradients(direct_backward)
    assert len(theirs) == len(ours) == 7 + 4
    assert all(a.equal(b) for a, b in zip(theirs, ours, strict=True))


def test_a_graph_is_freed_and_a_loss_without_one_refused() -> None:
    weight = torch.ones(3, requires_grad=True)
    loss = weight.square().sum()
    direct_backward(loss)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        direct_backward(loss)
    with pytest.raises(RuntimeError, match="does not require grad"):
        direct_backward(torch.ones(()))


def test_a_gradient_that_is_changed_does_not_change_the_next() -> None:
    """Here the gradient of the loss arrives at the weight as it is."""
    weight = torch.zeros((), requires_grad=True)
    for _ in range(2):
        weight.grad = None
        direct_backward(weight + 0)
        assert weight.grad == 1
        weight.grad.mul_(5)
