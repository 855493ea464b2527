"""Optimizers with a rate for each network take, for each, torch's steps at its rate."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from bnlm.replica_rates import rates_of, with_rates

RATES = [0.1, 0.03, 0.0]
MAKES = {
    "sgd": partial(torch.optim.SGD, lr=1.0),
    "decay": partial(torch.optim.SGD, lr=1.0, momentum=0.9, weight_decay=0.05, nesterov=True, fused=True),
    "dampening": partial(torch.optim.SGD, lr=1.0, momentum=0.8, dampening=0.2),
    "adamw": partial(torch.optim.AdamW, lr=1.0, betas=(0.8, 0.95), weight_decay=0.3),
}
SCHEDULES: dict[str, Any] = {
    "step": partial(torch.optim.lr_scheduler.MultiStepLR, milestones=[3], gamma=0.1),
    "cosine": partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=8, eta_min=0.01),
}


def parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, 4, 5), (3, 5), (3,)]  # the last is of a scalar
    return [nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64)) for shape in shapes]


def gradients(step: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(step + 1)
    return [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in parameters()]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("make", MAKES)
def test_steps_are_torchs_of_each_network_alone(make: str, schedule: str) -> None:
    """To 1e-12 over 8 steps in float64; halfway, state and schedule are taken over by another optimizer."""
    together = parameters()
    optimizer = with_rates(MAKES[make], RATES)(together)
    scheduler = SCHEDULES[schedule](optimizer)
    singles = [[nn.Parameter(p[i].detach().clone()) for p in together] for i in range(3)]
    alone = [partial(MAKES[make], lr=rate)(single) for rate, single in zip(RATES, singles, strict=True)]
    schedules = [SCHEDULES[schedule](each) for each in alone]
    for step in range(8):
        if step == 4:
            states = optimizer.state_dict(), scheduler.state_dict()
            optimizer = with_rates(MAKES[make], [9.0] * 3)(together)
            scheduler = SCHEDULES[schedule](optimizer)
            optimizer.load_state_dict(states[0])
            scheduler.load_state_dict(states[1])
        for p, g in zip(together, gradients(step), strict=True):
            p.grad = g.clone()
        optimizer.step()
        scheduler.step()
        for i, (single, each, its_schedule) in enumerate(zip(singles, alone, schedules, strict=True)):
            for p, g in zip(single, gradients(step), strict=True):
                p.grad = g[i].clone()
            each.step()
            its_schedule.step()
            assert_close([p[i] for p in together], list(single), rtol=1e-12, atol=1e-12)
            assert rates_of(optimizer)[i] == pytest.approx(rates_of(each)[0], abs=1e-15)


def test_a_parameter_without_gradient_stays_and_a_closure_is_called() -> None:
    together = parameters()
    optimizer = with_rates(MAKES["adamw"], RATES)(together)
    before = together[0].detach().clone()
    together[1].grad = torch.ones_like(together[1])
    assert optimizer.step(lambda: 7) == 7
    assert torch.equal(together[0], before)
    assert set(optimizer.state) == {together[1]}


def test_hooks_of_a_step_are_called() -> None:
    heard: list[int] = []
    optimizer = with_rates(MAKES["sgd"], RATES)(parameters())
    optimizer.register_step_pre_hook(lambda *args: heard.append(0))
    optimizer.register_step_post_hook(lambda *args: heard.append(1))
    optimizer.step()
    assert heard == [0, 1]


def test_other_optimizers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"optimizer\.lr=\[0\.1, 0\.03, 0\.0\].*SGD and AdamW, not for Adagrad"):
        with_rates(partial(torch.optim.Adagrad, lr=1.0), RATES)
    with pytest.raises(ValueError, match="amsgrad=True"):
        with_rates(partial(torch.optim.AdamW, lr=1.0, amsgrad=True), RATES)
    with pytest.raises(ValueError, match=r"optimizer\.lr=\[0\.1, -0\.1\]: expected rates of at least 0"):
        with_rates(MAKES["sgd"], [0.1, -0.1])(parameters())
