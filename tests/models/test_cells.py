"""Our recurrent cells are torch.nn's, and normalise what comes in from below."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence
from torch.testing import assert_close

from bnlm.models import GRUCell, LSTMCell, RNNCell
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
    states = cell(x, STEPS)
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
    states = cell(x, STEPS)
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
