"""The kernel called by itself does what the optimizer's step does, bit for bit."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import StepLR

from bnlm.direct_update import direct_update
from bnlm.probe import StepProbe, Wanted

Make = Callable[[list[nn.Parameter]], Optimizer]
FUSED: dict[str, Make] = {
    "sgd": lambda p: SGD(p, lr=0.1, fused=True),
    "sgd, momentum": lambda p: SGD(p, lr=0.1, momentum=0.9, dampening=0.1, weight_decay=0.01, fused=True),
    "sgd, nesterov": lambda p: SGD(p, lr=0.1, momentum=0.9, nesterov=True, fused=True),
    "adamw": lambda p: AdamW(p, lr=0.01, betas=(0.8, 0.95), weight_decay=0.1, fused=True),
}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))


def trained(make: Make, steps: int, direct: bool, resume_at: int | None = None) -> tuple[list[Tensor], Optimizer]:
    model = network()
    optimizer = make(list(model.parameters()))
    scheduler = StepLR(optimizer, 3, 0.5)
    update = optimizer.step
    for step in range(steps):
        model.zero_grad()
        model(torch.randn(6, 5, generator=torch.Generator().manual_seed(step))).square().sum().backward()
        update() if step else optimizer.step()
        if direct and step == 0:
            update = direct_update(optimizer)
            assert update != optimizer.step
        if step == resume_at:
            optimizer.load_state_dict(optimizer.state_dict())
            update = direct_update(optimizer) if direct else optimizer.step
        scheduler.step()
    state = [t for p in model.parameters() for t in optimizer.state[p].values() if isinstance(t, Tensor)]
    return [*model.parameters(), *state], optimizer


@pytest.mark.parametrize("name", FUSED)
def test_parameters_and_state_are_those_of_steps(name: str) -> None:
    straight, _ = trained(FUSED[name], 8, direct=False)
    direct, _ = trained(FUSED[name], 8, direct=True, resume_at=4)
    assert all(a.equal(b) for a, b in zip(straight, direct, strict=True))


def test_a_parameter_without_gradient_stays_as_it_is() -> None:
    model = network()
    optimizer = SGD(model.parameters(), lr=0.1, weight_decay=0.5, fused=True)
    update = direct_update(optimizer)
    before = model[2].weight.detach().clone()
    model[0](torch.randn(2, 5)).sum().backward()
    update()
    assert model[2].weight.equal(before)
    assert not model[0].weight.equal(network()[0].weight)


OTHERS: dict[str, Make] = {
    "not fused": lambda p: SGD(p, lr=0.1),
    "another optimizer": lambda p: torch.optim.Adam(p, lr=0.1, fused=True),
    "two groups": lambda p: SGD([{"params": p[:1]}, {"params": p[1:]}], lr=0.1, fused=True),
    "a rate on the device": lambda p: AdamW(p, lr=torch.tensor(0.1), fused=True),
    "no state yet": lambda p: SGD(p, lr=0.1, momentum=0.9, fused=True),
    "amsgrad": lambda p: AdamW(p, lr=0.1, amsgrad=True, fused=True),
}


@pytest.mark.parametrize("name", OTHERS)
def test_any_other_optimizer_steps_itself(name: str) -> None:
    optimizer = OTHERS[name](list(network().parameters()))
    assert direct_update(optimizer) == optimizer.step


def test_who_listens_to_steps_hears_them() -> None:
    model = network()
    optimizer = SGD(model.parameters(), lr=0.1, fused=True)
    heard: list[int] = []
    handle = optimizer.register_step_post_hook(lambda *_: heard.append(0))
    direct_update(optimizer)()
    handle.remove()
    direct_update(optimizer)()
    assert heard == [0]


def test_a_probe_whose_step_is_over_needs_not_be_called() -> None:
    model = network()
    optimizer = SGD(model.parameters(), lr=0.1, fused=True)
    probe = StepProbe(model, [optimizer], Wanted(gradients=True))
    probe.attach()
    optimizer.step()
    assert optimizer._optimizer_step_post_hooks
    assert direct_update(optimizer) != optimizer.step
    probe.detach()
