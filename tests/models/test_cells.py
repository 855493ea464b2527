"""Our recurrent cells are torch.nn's, and normalise what comes in from below."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck
from torch.nn.utils.rnn import PackedSequence
from torch.overrides import TorchFunctionMode
from torch.testing import assert_close

from bnlm.models import GRUCell, LSTMCell, RNNCell
from bnlm.models.positions import Positions
from bnlm.models.recurrences import gru, lstm
from bnlm.models.steps import PackedSteps, PaddedSteps
from bnlm.normalization import BatchNorm, LayerNorm

STEPS = [4, 4, 3, 1, 1]
N_IN, N_STATE = 3, 5
PAIRS: list[tuple[Any, Any]] = [(RNNCell, nn.RNN), (GRUCell, nn.GRU), (LSTMCell, nn.LSTM)]


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_same_weights_same_states_and_gradients(ours: Any, theirs: Any) -> None:
    torch.manual_seed(0)
    cell, reference = ours(N_IN, N_STATE).double(), theirs(N_IN, N_STATE).double()
    reference.load_state_dict({f"{name}_l0": value for name, value in cell.state_dict().items()})
    x = torch.randn(sum(STEPS), N_IN, dtype=torch.float64)
    states = cell(x, PackedSteps(STEPS))
    expected = reference(PackedSequence(x, torch.tensor(STEPS)))[0].data
    assert_close(states, expected, rtol=1e-12, atol=1e-12)
    direction = torch.randn_like(states)
    (states * direction).sum().backward()
    (expected * direction).sum().backward()
    for name, parameter in cell.named_parameters():
        assert_close(parameter.grad, getattr(reference, f"{name}_l0").grad, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_a_normalization_works_on_all_inputs_together(ours: Any, theirs: Any) -> None:
    torch.manual_seed(0)
    cell = ours(N_IN, N_STATE, lambda n: BatchNorm(n, channel_dim=-1)).double()
    assert cell.bias_ih is None  # the normalization would remove it
    x = torch.randn(sum(STEPS), N_IN, dtype=torch.float64)
    states = cell(x, PackedSteps(STEPS))
    z = x @ cell.weight_ih.T
    z = (z - z.mean(0)) / (z.var(0, correction=0) + 1e-5).sqrt()
    # torch's network on inputs that are normalised already: its input weights pass them on as they are
    reference = theirs(z.shape[1], N_STATE).double()
    passes = {"weight_ih_l0": torch.eye(z.shape[1]), "bias_ih_l0": torch.zeros(z.shape[1])}
    reference.load_state_dict(passes | {"weight_hh_l0": cell.weight_hh, "bias_hh_l0": cell.bias_hh})
    assert_close(states, reference(PackedSequence(z, torch.tensor(STEPS)))[0].data, rtol=1e-10, atol=1e-10)


def test_a_bias_stays_where_a_normalization_keeps_it() -> None:
    assert GRUCell(N_IN, N_STATE, LayerNorm).bias_ih is not None
    assert GRUCell(N_IN, N_STATE, nn.Identity).normalization is None


class Calls(TorchFunctionMode):
    """Which functions are called while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(func)
        return func(*args, **(kwargs or {}))


def states_and_gradients(cell: nn.Module, x: Tensor, steps: PackedSteps | PaddedSteps) -> list[Tensor]:
    states = cell(x, steps)
    direction = torch.linspace(-1, 2, states.numel(), dtype=states.dtype).view_as(states)
    return [states, *torch.autograd.grad((states * direction).sum(), list(cell.parameters()))]


@pytest.mark.parametrize("cell", [RNNCell, GRUCell, LSTMCell])
def test_who_looks_at_the_calls_sees_every_activation(cell: Any) -> None:
    torch.manual_seed(0)
    network, x = cell(N_IN, N_STATE).double(), torch.randn(sum(STEPS), N_IN, dtype=torch.float64)
    unseen = states_and_gradients(network, x, PackedSteps(STEPS))
    with Calls() as calls:
        seen = states_and_gradients(network, x, PackedSteps(STEPS))
    assert calls.seen.count(torch.tanh) == {RNNCell: 1, GRUCell: 1, LSTMCell: 2}[cell] * len(STEPS)
    assert_close(unseen, seen, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("cell", [RNNCell, GRUCell, LSTMCell])
def test_padded_steps_are_the_packed_ones(cell: Any) -> None:
    torch.manual_seed(0)
    network = cell(N_IN, N_STATE).double()
    x, direction = torch.randn(3, 4, N_IN, dtype=torch.float64), torch.randn(3, 4, N_STATE, dtype=torch.float64)
    found = []
    for packed in (True, False):
        positions = Positions(torch.tensor([[0, 2, 0, 0], [0, 3, 4, 1], [0, 0, 0, 0]]))
        steps = positions.in_steps() if packed else PaddedSteps(positions)
        assert isinstance(steps, PackedSteps) == packed
        states = positions.unpack(network(positions.pack(x), steps))
        found.append([states, *torch.autograd.grad((states * direction).sum(), list(network.parameters()))])
    assert_close(found[0], found[1], rtol=1e-12, atol=1e-12)


def test_the_backward_passes_by_hand_are_the_derivatives() -> None:
    torch.manual_seed(0)
    z_gru, z_lstm = (torch.randn(sum(STEPS), n * 2, dtype=torch.float64, requires_grad=True) for n in (3, 4))
    w_gru, w_lstm = (torch.randn(n * 2, 2, dtype=torch.float64, requires_grad=True) for n in (3, 4))
    bias = torch.randn(6, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda *given: gru(*given, STEPS), (z_gru, w_gru, bias))
    assert gradcheck(lambda *given: lstm(*given, STEPS), (z_lstm, w_lstm))


@pytest.mark.parametrize("cell", [RNNCell, GRUCell, LSTMCell])
def test_cells_work_under_autocast(cell: Any) -> None:
    torch.manual_seed(0)
    network, x = cell(N_IN, N_STATE), torch.randn(sum(STEPS), N_IN)
    exact = network(x, PackedSteps(STEPS))
    with torch.autocast("cpu", torch.bfloat16):
        states = network(x, PackedSteps(STEPS))
    states.float().sum().backward()
    assert_close(states.float(), exact, rtol=0, atol=0.05)
