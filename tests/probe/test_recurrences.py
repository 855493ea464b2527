"""The outputs of torch's fused recurrences, which are those of an activation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from bnlm.probe import StepProbe, StepRecord
from bnlm.stats import mean_of, std_of

Observe = Callable[..., StepRecord]


class Reader(nn.Module):
    """A recurrence whose last outputs are read."""

    def __init__(self, packed: bool = False, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rnn = nn.RNN(5, 7, batch_first=True, **options).double()
        self.packed = packed

    def forward(self, x: Tensor) -> Tensor:
        return self.outputs(x)[..., -1]

    def outputs(self, x: Tensor) -> Tensor:
        if self.packed:
            return self.rnn(pack_padded_sequence(x, [6, 4, 2], batch_first=True))[0].data
        return self.rnn(x)[0]


def drawn(seed: int = 0) -> Tensor:
    return 4 * torch.randn(3, 6, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("options", [{}, {"num_layers": 2}, {"bidirectional": True}, {"packed": True}])
def test_the_outputs_of_a_tanh_recurrence(options: dict[str, Any], observe: Observe) -> None:
    model = Reader(**options)
    expected = model.outputs(drawn()).detach()
    seen = observe(model, drawn()).activations
    assert list(seen) == ["rnn.tanh"]
    record = seen["rnn.tanh"]
    torch.testing.assert_close(mean_of(record.output), expected.mean(), rtol=1e-10, atol=1e-15)
    torch.testing.assert_close(std_of(record.output), expected.std(), rtol=1e-10, atol=0)
    assert record.flat is not None
    assert record.flat[:2].tolist() == [expected.numel(), (expected.abs() > 0.97).sum()]
    assert record.input is None  # within the kernel
    assert record.gradient is None  # of which the outputs show a part


def test_micro_batches_beside_an_activation_of_its_own(observe: Observe) -> None:
    class Both(Reader):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(super().forward(x))

    model = Both()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    expected = torch.cat([model.outputs(drawn(seed)).detach() for seed in (0, 1)])

    def step(probe: StepProbe) -> None:
        for seed in (0, 1):
            model(drawn(seed)).square().sum().backward()
            probe.after_backward()
        optimizer.step()

    seen = observe(model, drawn(), [optimizer], step).activations
    assert list(seen) == ["rnn.tanh", "tanh"]
    torch.testing.assert_close(std_of(seen["rnn.tanh"].output), expected.std(), rtol=1e-10, atol=0)
    before = seen["tanh"].input
    assert before is not None
    torch.testing.assert_close(std_of(before), expected[..., -1].std(), rtol=1e-10, atol=0)


def test_units_of_a_relu_recurrence_that_do_not_respond(observe: Observe) -> None:
    model = Reader(nonlinearity="relu")
    model.rnn.bias_ih_l0.data[:3] = -100
    responded = observe(model, drawn()).activations["rnn.relu"].responded
    assert responded is not None
    assert responded.tolist()[:3] == [False] * 3
    assert responded.equal((model.outputs(drawn()) > 0).any(0).any(0))
