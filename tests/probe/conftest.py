"""What the tests of the probe share: one observed step."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from bnlm.probe import StepProbe, StepRecord, Wanted

EVERYTHING = Wanted(activations=True, gradients=True, updates=True, histograms=True, maps=True)


@pytest.fixture
def observe(leftovers: Callable[..., list[str]]) -> Callable[..., StepRecord]:
    """Observe `step`, by default a forward, the backward of its squared sum, and a step of each optimizer."""

    def run(
        model: nn.Module,
        x: Tensor,
        optimizers: Sequence[Optimizer] | None = None,
        step: Callable[[StepProbe], object] | None = None,
        wanted: Wanted = EVERYTHING,
    ) -> StepRecord:
        parameters = list(model.parameters()) or [torch.zeros(2, requires_grad=True)]
        optimizers = [torch.optim.SGD(parameters, lr=0.1)] if optimizers is None else optimizers
        probe = StepProbe(model, optimizers, wanted)
        probe.attach()
        try:
            if step is not None:
                step(probe)
            else:
                output = model(x)
                if output.requires_grad:
                    output.square().sum().backward()
                for optimizer in optimizers:
                    optimizer.step()
        finally:
            probe.end()
        assert leftovers(model) == []
        return probe.record()

    return run
