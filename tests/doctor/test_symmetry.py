"""Weights that are zero or alike: where nothing of the input passes, and where that is how networks are started."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnlm.doctor import check


class Net(nn.Module):
    """Three layers, with calls for activations; `gate` multiplies the middle one by what may start at zero."""

    def __init__(self, inputs: int = 9, gate: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.gate = nn.Linear(inputs, 30) if gate else None
        self.first, self.middle, self.last = nn.Linear(inputs, 30), nn.Linear(30, 30), nn.Linear(30, 10)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.middle(F.relu(self.first(x))))
        return self.last(hidden if self.gate is None else hidden * self.gate(x).sigmoid())


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rnn, self.last = nn.LSTM(9, 30, batch_first=True), nn.Linear(30, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.rnn(x)[0]).flatten(0, 1)


def symmetric(net: nn.Module, inputs: int = 9, steps: int | None = None) -> list[str]:
    torch.manual_seed(1)
    x = torch.randn(64, inputs) if steps is None else torch.randn(64, steps, inputs)
    data = x, torch.randint(10, (64 * (steps or 1),))
    return [f.severity for f in check(net, data, F.cross_entropy, table=False) if f.rule == "R20"]


@pytest.mark.parametrize(
    ("zero", "expected"),
    [
        ((), []),
        (("first",), ["critical"]),
        (("middle",), ["critical"]),
        (("first", "middle", "last"), ["critical"]),  # with biases as torch draws them
        (("last",), []),  # as outputs may start
    ],
)
def test_zero_weights_through_which_nothing_passes(zero: tuple[str, ...], expected: list[str]) -> None:
    net = Net()
    for name in zero:
        nn.init.zeros_(net.get_submodule(name).weight)
    assert symmetric(net) == expected


def test_a_gate_that_starts_half_open() -> None:
    net = Net(gate=True)
    assert net.gate is not None
    nn.init.zeros_(net.gate.weight)
    assert symmetric(net) == []


@pytest.mark.parametrize("zero", [True, False])
def test_a_recurrence_whose_inputs_do_not_come_in(zero: bool) -> None:
    """What it returns differs from step to step all the same."""
    net = Recurrent()
    if zero:
        nn.init.zeros_(net.rnn.weight_ih_l0)
    assert symmetric(net, steps=7) == ["critical"] * zero


@pytest.mark.parametrize(("draw", "expected"), [(lambda w: nn.init.constant_(w, 0.1), ["critical"]), (lambda w: w, [])])
def test_units_of_two_inputs(draw: Callable[[Tensor], Tensor], expected: list[str]) -> None:
    net = Net(inputs=2)
    draw(net.first.weight)
    assert symmetric(net, inputs=2) == expected


@pytest.mark.parametrize("units", [2, 3, 4, 8])
def test_few_units_of_two_inputs_are_not_alike_by_chance(units: int) -> None:
    for seed in range(40):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(2, units), nn.Tanh(), nn.Linear(units, 10))
        assert symmetric(net, inputs=2) == []


@pytest.mark.parametrize(("random", "expected"), [(False, ["critical"]), (True, [])])
def test_factors_that_are_all_the_same_number(random: bool, expected: list[str]) -> None:
    """Of a factorisation: each column gets the gradient of any other. With one table drawn at random they do not."""

    class Factors(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.users, self.items = nn.Embedding(20, 8), nn.Embedding(30, 8)
            nn.init.constant_(self.users.weight, 0.02)
            if not random:
                nn.init.constant_(self.items.weight, 0.02)

        def forward(self, pairs: Tensor) -> Tensor:
            return (self.users(pairs[:, 0]) * self.items(pairs[:, 1])).sum(1)

    torch.manual_seed(0)
    batch = torch.randint(20, (64, 2)), torch.randn(64)
    findings = check(Factors(), batch, F.mse_loss, table=False)
    assert [f.severity for f in findings if f.rule == "R20"] == expected


def test_a_single_layer_that_is_constant_has_no_units_to_tell_apart() -> None:
    """A regression on one output."""
    network = nn.Linear(4, 1)
    nn.init.constant_(network.weight, 0.5)
    batch = torch.randn(64, 4), torch.randn(64, 1)
    assert "R20" not in {f.rule for f in check(network, batch, F.mse_loss, table=False)}
