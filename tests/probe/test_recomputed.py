"""Reentrant checkpoints compute their activations twice: outputs are counted once, gradients are those of the second.

Expected is what is seen of the same network without a checkpoint, in float64: 1e-10 is room for another order of sums.
"""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

from bnlm.probe import ActivationModules, StepProbe, StepRecord, Wanted
from bnlm.probe.activation_modules import AGREED

Run = Callable[..., Tensor]
EVERYTHING = Wanted(activations=True, gradients=True, updates=True, histograms=True, maps=True)


class Block(nn.Module):
    """Twice the same function, once a module, all of which run outside of this module when they are run again."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.act = nn.Linear(6, 6), nn.Linear(6, 6), nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.second(self.act(F.gelu(self.first(x)))))


class Modules(Block):
    """The same with modules alone, of which one is called twice."""

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.second(self.act(self.first(x))))


class Network(nn.Module):
    """Two blocks in segments of their own, and one that both passes go through."""

    def __init__(self, block: type[nn.Module], how: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks, self.shared, self.how = nn.ModuleList(block() for _ in range(2)), block(), how

    def forward(self, x: Tensor) -> Tensor:
        for block in (*self.blocks, self.shared, self.shared):
            x = self._segment(block, x)
        return x

    def _segment(self, block: nn.Module, x: Tensor) -> Tensor:
        if self.how == "plain":
            return block(x)
        return checkpoint(block.forward if self.how == "function" else block, x, use_reentrant=True)


def observed(block: type[nn.Module], how: str, pauses: bool = False, steps: int = 1) -> StepRecord:
    """Observe the last of several steps, with what the others have taught."""
    model = Network(block, how).double()
    x = torch.randn(9, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()
    optimizer, modules = torch.optim.SGD(model.parameters(), lr=0.0), ActivationModules()
    for _ in range(steps):
        model.zero_grad()
        probe = StepProbe(model, [optimizer], EVERYTHING, modules=modules)
        probe.attach()
        loss = model(x).square().sum()
        if pauses:
            probe.pause()
        loss.backward()
        optimizer.step()
        probe.end()
        record = probe.record()
    return record


@pytest.mark.parametrize("pauses", [False, True], ids=["heard", "paused"])
@pytest.mark.parametrize("how", ["module", "function"])
@pytest.mark.parametrize("block", [Block, Modules])
def test_as_without_a_checkpoint(block: type[nn.Module], how: str, pauses: bool) -> None:
    same_as_plain(observed(block, how, pauses), observed(block, "plain", pauses), in_modules=how == "module")


class Alone(Block):
    """Its activations are modules, each called once: after some steps these are listened to alone."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.other(self.second(self.act(self.first(x))))


def test_where_modules_alone_are_listened_to() -> None:
    steps = AGREED + 2
    same_as_plain(observed(Alone, "module", True, steps), observed(Alone, "plain", True, steps), in_modules=True)


def same_as_plain(record: StepRecord, plain: StepRecord, in_modules: bool) -> None:
    if in_modules:
        assert record.kinds == plain.kinds
    assert list(record.kinds.values()) == list(plain.kinds.values())
    for group in ("output", "input", "output gradient"):
        assert record.sums[group].names == list(record.kinds)
        assert_close(record.sums[group].sums, plain.sums[group].sums, rtol=1e-10, atol=1e-10)


def test_a_teacher_without_a_graph_has_no_gradient() -> None:
    model = Network(Block, "plain")
    x = torch.randn(9, 6)
    probe = StepProbe(model, [torch.optim.SGD(model.parameters(), lr=0.1)], EVERYTHING)
    probe.attach()
    with torch.no_grad():
        model(x)
    probe.end()
    assert "output gradient" not in probe.record().sums
