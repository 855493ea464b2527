"""Gradients that somebody asks for are none of the loss: penalties, samplers, optimizers of the second order."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from bnlm.probe import ActivationModules, StepProbe, Wanted
from bnlm.probe.activation_modules import AGREED
from bnlm.stats import std_of


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Tanh(), nn.Linear(7, 3)).double()


def of_inputs(model: nn.Module, x: Tensor, output: Tensor) -> Tensor:
    """The penalty of Gulrajani et al. 2017, arXiv 1704.00028, in short."""
    (gradient,) = torch.autograd.grad(output.sum(), x, create_graph=True)
    return gradient.square().sum()


def of_weights(model: nn.Module, x: Tensor, output: Tensor) -> Tensor:
    gradients = torch.autograd.grad(10 * output.sum(), list(model.parameters()), create_graph=True)
    return sum((g.square().sum() for g in gradients), torch.zeros(()))


def of_some_weights(model: nn.Module, x: Tensor, output: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(10 * output.sum(), model[0].bias, create_graph=True)
    return gradient.square().sum()


@pytest.mark.parametrize("modules_alone", [False, True])
@pytest.mark.parametrize("penalty", [of_inputs, of_weights, of_some_weights])
def test_a_penalty(penalty: Callable[..., Tensor], modules_alone: bool) -> None:
    """It begins once the network's modules are listened to alone, and nobody hears calls of `grad`."""
    model, modules = network(), ActivationModules()
    x = torch.randn(11, 5, dtype=torch.float64).requires_grad_()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    expected: list[Tensor] = []
    for step in range(AGREED + 2 if modules_alone else 1):
        model.zero_grad()
        probe = StepProbe(model, [optimizer], Wanted(activations=True), modules=modules if modules_alone else None)
        probe.attach()
        hidden = model[:3](x)
        output = model[3](hidden)
        loss = output.square().sum()
        if step > AGREED or not modules_alone:
            assert bool(model[2]._forward_hooks) == modules_alone
            loss = loss + penalty(model, x, output)
        hidden.register_hook(expected.append)
        probe.pause()
        loss.backward()
        optimizer.step()
        probe.end()
    (layer,) = probe.record().activations.values()
    assert_close(std_of(layer.gradient), expected[-1].std(), rtol=1e-10, atol=0)


@pytest.mark.filterwarnings("ignore:Using backward.. with create_graph=True")
def test_the_second_order_in_the_step() -> None:
    """As AdaHessian does (Yao et al. 2021, arXiv 2006.00719): the gradient of a gradient, before the weights change."""
    model, x = network(), torch.randn(11, 5, dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    probe = StepProbe(model, [optimizer], Wanted(activations=True))
    expected: list[Tensor] = []
    probe.attach()
    hidden = model[:3](x)
    hidden.register_hook(expected.append)
    loss = model[3](hidden).square().sum()
    probe.pause()  # as when Lightning's backward pass begins: no call is heard
    loss.backward(create_graph=True)
    torch.autograd.grad(model[0].weight.grad.square().sum(), [model[0].weight, model[3].weight])
    optimizer.step()
    probe.end()
    (layer,) = probe.record().activations.values()
    assert_close(std_of(layer.gradient), expected[0].std(), rtol=1e-10, atol=0)
    model.zero_grad()  # breaks the cycle that create_graph has made


def test_of_two_networks_each_has_its_own() -> None:
    """A leaf is looked for before each activation: that of another network is not reached by this loss."""
    one, other = network(), network()
    both = nn.ModuleList([one, other])
    x = torch.randn(11, 5, dtype=torch.float64)
    optimizer = torch.optim.SGD(both.parameters(), lr=0.1)
    probe = StepProbe(both, [optimizer], Wanted(activations=True))
    probe.attach()
    other(x)
    one(x).square().sum().backward()
    optimizer.step()
    probe.end()
    activations = probe.record().activations
    assert activations["0.2"].gradient is not None
    assert activations["1.2"].gradient is None
