"""Which dimension of an activation holds the channels: found from the layers before it, or told."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnlm.probe import StepProbe, Wanted

CHANNELS, LENGTH = 4, 16


class Sequence(nn.Module):
    """A convolution of four channels, half of which are silent, what `between` makes of it, and a ReLU."""

    def __init__(self, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.between, self.act = nn.Conv1d(1, CHANNELS, 3, padding=2), between, nn.ReLU()
        with torch.no_grad():
            self.conv.bias.copy_(torch.tensor([-100.0, -100.0, 100.0, 100.0]))

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.between(self.conv(x)))


def responded(model: nn.Module, x: Tensor, **told: dict[str, int]) -> Tensor:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    probe = StepProbe(model, [optimizer], Wanted(activations=True), **told)
    probe.attach()
    try:
        model(x).sum().backward()
        optimizer.step()
    finally:
        probe.end()
    return probe.record().responded["act"]


@pytest.mark.parametrize(
    "between",
    [
        lambda h: F.max_pool1d(h, 2),
        nn.MaxPool1d(2),
        nn.AvgPool1d(3),
        nn.AdaptiveMaxPool1d(5),
        lambda h: F.adaptive_avg_pool1d(h, 5),
        lambda h: h[:, :, :-2],
        lambda h: h[..., 2:].contiguous(),
        lambda h: F.pad(h, (3, 1)),
        lambda h: F.interpolate(h, scale_factor=2),
        lambda h: h.narrow(2, 1, 5),
        lambda h: torch.cat([h, h[:, :, :3]], dim=2),
        lambda h: F.max_pool1d(F.pad(h, (1, 0)), 2)[:, :, 1:],
    ],
)
def test_after_a_convolution_over_a_sequence(between: Callable[[Tensor], Tensor]) -> None:
    assert responded(Sequence(between), torch.randn(6, 1, LENGTH)).tolist() == [False, False, True, True]


def test_gates_of_which_each_gets_half_of_the_channels() -> None:
    assert len(responded(Sequence(lambda h: h.chunk(2, 1)[0]), torch.randn(6, 1, LENGTH))) == CHANNELS // 2


class Turned(nn.Module):
    """Nothing tells that the features of a linear layer stand in dimension 1 now."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.act = nn.Linear(5, CHANNELS), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.linear(x).transpose(1, 2))


@pytest.mark.parametrize(("told", "units"), [({}, 7), ({"act": 1}, CHANNELS), ({"a*": -2}, CHANNELS)])
def test_what_is_told_is_believed(told: dict[str, int], units: int) -> None:
    assert len(responded(Turned(), torch.randn(3, 7, 5), channel_dims=told)) == units


def test_a_dimension_that_there_is_not() -> None:
    with pytest.raises(
        ValueError, match=r"channel_dims=\{'act': 3\}: the activation act has 3 dimensions, \(3, 4, 7\)"
    ):
        responded(Turned(), torch.randn(3, 7, 5), channel_dims={"act": 3})
