"""What the tests of the probe share: one observed step, and a look whether anything was left behind."""

from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks
from torch.optim import Optimizer

from bnlm.probe import StepProbe, StepRecord, Wanted

EVERYTHING = Wanted(activations=True, gradients=True, updates=True, histograms=True, maps=True)


def left_behind(*roots: nn.Module) -> list[str]:
    """Name what an observer has not taken off."""
    found = [f"mode {mode}" for mode in torch.overrides._get_current_function_mode_stack()]
    found += ["global hook"] * (len(hooks._global_forward_hooks) + len(hooks._global_forward_pre_hooks))
    found += ["global hook"] * len(hooks._global_forward_hooks_always_called)
    for root in roots:
        for path, module in root.named_modules():
            found += [f"hook on {path}"] * (len(module._forward_hooks) + len(module._forward_pre_hooks))
            found += [f"hook on {path}"] * (len(module._backward_hooks) + len(module._backward_pre_hooks))
    stance = torch._dynamo.eval_frame._stance.stance
    return found + ([] if stance == "default" else [f"stance {stance}"])


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    yield
    assert left_behind() == []


@pytest.fixture
def leftovers() -> Callable[..., list[str]]:
    return left_behind


@pytest.fixture
def observe() -> Callable[..., StepRecord]:
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
            probe.detach()
        assert left_behind(model) == []
        return probe.record

    return run
