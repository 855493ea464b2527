"""A model that was run is given back as it was, whatever it does to itself."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnlm.doctor import check
from bnlm.doctor.unchanged import unchanged


class Renormed(nn.Module):
    """Its embedding's rows are cut to a length in the forward, and its weight matrix is set to another."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.linear = nn.Embedding(20, 4, max_norm=0.5), nn.Linear(4, 3)

    def forward(self, idx: Tensor) -> Tensor:
        self.linear.weight.data = F.normalize(self.linear.weight.data)
        return self.linear(self.embedding(idx).mean(1))


class Cached(nn.Module):
    """Makes a buffer, lets one grow, keeps one of its results in another, and counts in a tensor that is no buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.linear = nn.BatchNorm1d(4), nn.Linear(4, 3)
        self.register_buffer("made", None, persistent=False)
        self.register_buffer("grown", torch.zeros(2))
        self.register_buffer("result", torch.zeros(3))
        self.calls = torch.zeros(())
        self.generator = torch.Generator().manual_seed(3)

    def forward(self, x: Tensor) -> Tensor:
        self.made = torch.arange(4.0)
        if len(self.grown) < 4:
            self.grown = torch.ones(4)
        self.calls += 1
        noise = random.random() + float(np.random.rand())  # noqa: NPY002
        noise = noise + torch.rand((), generator=self.generator) + torch.rand(())
        output = self.linear(self.norm(x) * self.made + self.grown) * noise
        self.result = output.mean(0)
        return output


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: t.detach().clone() for name, t in (*model.named_parameters(), *model.named_buffers())}


def draws(model: Cached) -> list[float]:
    """What would be drawn next, drawn from copies of the states."""
    with unchanged(model):
        own = torch.rand((), generator=model.generator)
        return [random.random(), float(np.random.rand()), float(torch.rand(())), float(own)]  # noqa: NPY002


@pytest.mark.parametrize("fails", [False, True])
def test_buffers_tensors_modes_and_random_states(fails: bool) -> None:
    model = Cached().eval()
    model(torch.randn(5, 4))
    model.made, model.grown = None, torch.zeros(2)
    x = torch.randn(5, 4)
    before, next_draws = state_of(model), draws(model)
    targets = torch.tensor([0, 1, 2, 3 if fails else 0, 1])
    try:
        check(model, (x, targets), F.cross_entropy, table=False)
    except IndexError:
        assert fails
    after = state_of(model)
    assert list(after) == list(before)
    assert all(after[name].equal(before[name]) for name in before)
    assert model.made is None
    assert model.calls == 1
    assert draws(model) == next_draws
    assert not any(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_parameters_that_the_forward_changes() -> None:
    model = Renormed()
    before = state_of(model)
    batch = torch.randint(20, (6, 5)), torch.randint(3, (6,))
    check(model, batch, F.cross_entropy, table=False)
    assert all(value.equal(before[name]) for name, value in state_of(model).items())


class Two(nn.Module):
    """Is called with two inputs; its embedding's gradient is sparse, and one parameter is complex."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.linear = nn.Embedding(20, 4, sparse=True), nn.Linear(8, 3)
        self.phase = nn.Parameter(torch.ones(4, dtype=torch.complex64))

    def forward(self, idx: Tensor, x: Tensor) -> Tensor:
        turned = (x * self.phase.conj()).real
        return self.linear(torch.cat([self.embedding(idx), turned], dim=1))


def test_several_inputs_and_gradients_of_all_kinds() -> None:
    batch = torch.randint(20, (32,)), torch.randn(32, 4), torch.randint(3, (32,))
    assert [f for f in check(Two(), batch, F.cross_entropy, table=False) if f.severity != "note"] == []


@pytest.mark.parametrize(
    ("batch", "described"),
    [
        ({"x": torch.ones(2, 4), "y": torch.ones(2)}, "a dict with the keys x, y"),
        ([torch.ones(2, 4)], "a list of 1"),
        (torch.ones(2, 4), "a Tensor"),
    ],
)
def test_a_batch_of_another_form(batch: object, described: str) -> None:
    with pytest.raises(TypeError, match=rf"batch: expected \(inputs, targets\).* got {described}\."):
        check(nn.Linear(4, 3), batch, F.cross_entropy, table=False)
