"""Networks whose activations are all modules: listened to alone, they give what hearing all calls gives."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from bnlm.probe import ActivationModules, StepProbe, StepRecord, Wanted
from bnlm.probe.activation_modules import AGREED, CHECKED_EVERY

Leftovers = Callable[..., list[str]]
EVERYTHING = Wanted(activations=True, gradients=True, updates=True, histograms=True, maps=True)
Step = Callable[[nn.Module, StepProbe], None]


def step_on(*batches: Tensor) -> Step:
    """Forward and backward on each, as Lightning's automatic optimization has them seen."""

    def step(model: nn.Module, probe: StepProbe) -> None:
        for x in batches:
            loss = model(x).square().sum()
            probe.pause()
            loss.backward()
            probe.next_forward()

    return step


class Observed:
    """A model, observed step after step with what its steps have taught."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.modules = ActivationModules()
        self.listened = 0

    def step(self, step: Step, modules: bool = True, wanted: Wanted = EVERYTHING) -> StepRecord:
        optimizer = torch.optim.SGD(self.model.parameters(), lr=0.0)  # each step is the same again
        self.model.zero_grad()
        probe = StepProbe(self.model, [optimizer], wanted, modules=self.modules if modules else None)
        probe.attach()
        self.listened += sum(len(module._forward_hooks) for module in self.model.modules())
        try:
            step(self.model, probe)
            optimizer.step()
        finally:
            probe.end()
        return probe.record()

    def learn(self, step: Step) -> None:
        for _ in range(AGREED + 1):
            self.step(step)
        assert self.listened == 0


def assert_equal(one: StepRecord, other: StepRecord) -> None:
    assert one.kinds == other.kinds
    assert list(one.kinds) == list(other.kinds)
    assert one.sums.keys() == other.sums.keys()
    for group, sums in one.sums.items():
        assert sums.names == other.sums[group].names
        assert_close(sums.sums, other.sums[group].sums, rtol=0, atol=0)
    for of_one, of_other in ((one.responded, other.responded), (one.maps, other.maps)):
        assert of_one.keys() == of_other.keys()
        assert all(of_one[name].equal(of_other[name]) for name in of_one)
    for which, histograms in one.histograms.items():
        assert all(histograms[name].equal(other.histograms[which][name]) for name in histograms)


def dense() -> nn.Module:
    return nn.Sequential(
        nn.Linear(7, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 5), nn.Hardtanh(-0.3, 0.2), nn.ReLU()
    )


def convolutional() -> nn.Module:
    return nn.Sequential(nn.Conv1d(7, 4, 3), nn.BatchNorm1d(4), nn.ReLU6(), nn.Conv1d(4, 3, 3), nn.PReLU(3), nn.GELU())


@pytest.mark.parametrize(("make", "shape"), [(dense, (9, 7)), (convolutional, (2, 7, 9))])
def test_the_same_as_all_calls(make: Callable[[], nn.Module], shape: tuple[int, ...], leftovers: Leftovers) -> None:
    torch.manual_seed(0)
    observed, step = Observed(make()), step_on(3 * torch.randn(shape))
    observed.learn(step)
    listening = observed.step(step)
    assert observed.listened == 3
    assert leftovers(observed.model) == []
    assert not any(module._forward_hooks for module in observed.model.modules())
    assert_equal(listening, observed.step(step, modules=False))


def test_another_length_keeps_its_channels() -> None:
    """`(N, C, T)`: that the channels are in dimension 1 was told by the convolution, in steps of another length."""
    torch.manual_seed(0)
    observed = Observed(convolutional())
    observed.learn(step_on(torch.randn(2, 7, 9)))
    longer = step_on(torch.randn(3, 7, 12))
    listening = observed.step(longer)
    assert observed.listened == 3
    assert_equal(listening, observed.step(longer, modules=False))


def test_micro_batches() -> None:
    torch.manual_seed(0)
    observed, step = Observed(nn.Sequential(nn.Linear(7, 6), nn.Sigmoid())), step_on(*torch.randn(3, 9, 7))
    observed.learn(step)
    listening = observed.step(step)
    assert observed.listened == 1
    assert listening.activations["1"].output[0] == 3 * 9 * 6
    assert_equal(listening, observed.step(step, modules=False))


def test_where_a_plain_backward_tells_one_forward_from_the_next_all_calls_are_heard() -> None:
    torch.manual_seed(0)
    observed, batches = Observed(nn.Sequential(nn.Linear(7, 6), nn.Sigmoid())), torch.randn(3, 9, 7)

    def step(model: nn.Module, probe: StepProbe) -> None:
        for x in batches:
            model(x).square().sum().backward()

    for _ in range(2 * AGREED):
        assert list(observed.step(step).kinds) == ["1"]
    assert observed.listened == 0


class Root(nn.Module):
    """Calls what it is told to, on the way from a linear layer to its output."""

    def __init__(self, call: Callable[["Root", Tensor], Tensor]) -> None:
        super().__init__()
        self.linear, self.act, self.call = nn.Linear(7, 7), nn.Tanh(), call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(self, self.linear(x))


@pytest.mark.parametrize(
    "call",
    [
        lambda self, x: torch.tanh(x),
        lambda self, x: F.relu(self.act(x)),
        lambda self, x: self.act(self.act(x)),
        lambda self, x: nn.ReLU(inplace=True)(x),
        lambda self, x: self.act.forward(x),
        lambda self, x: x,
    ],
    ids=["a call", "a module and a call", "twice", "in place", "not called itself", "none"],
)
def test_of_other_networks_all_calls_are_heard(call: Callable[[Root, Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    observed, step = Observed(Root(call)), step_on(torch.randn(9, 7))
    for _ in range(2 * AGREED):
        observed.step(step)
    assert observed.listened == 0


def test_an_activation_in_place_among_the_modules() -> None:
    torch.manual_seed(0)
    observed = Observed(nn.Sequential(nn.Linear(7, 6), nn.Tanh(), nn.Linear(6, 5), nn.ReLU(inplace=True)))
    for _ in range(2 * AGREED):
        observed.step(step_on(torch.randn(9, 7)))
    assert observed.listened == 0


def test_calls_that_come_later_are_found() -> None:
    """Within `CHECKED_EVERY` observed steps, and then they stay."""
    torch.manual_seed(0)
    observed, step = Observed(Root(lambda self, x: self.act(x))), step_on(torch.randn(9, 7))
    observed.learn(step)
    for _ in range(3 * CHECKED_EVERY):
        assert list(observed.step(step).kinds) == ["act"]
    assert observed.listened == 3 * (CHECKED_EVERY - 1)
    observed.model.call = lambda self, x: F.relu(self.act(x))
    kinds = [list(observed.step(step).kinds) for _ in range(3 * CHECKED_EVERY)]
    first = kinds.index(["act", "relu"])
    assert first < CHECKED_EVERY
    assert all(each == ["act", "relu"] for each in kinds[first:])


@pytest.mark.parametrize(
    ("call", "layers"),
    [(lambda self, x: self.act(self.act(x)), ["act", "act_1"]), (lambda self, x: x, [])],
    ids=["twice", "no more"],
)
def test_modules_that_are_called_otherwise(call: Callable[[Root, Tensor], Tensor], layers: list[str]) -> None:
    """Such a step is seen as it is, and from the next one on all calls are heard."""
    torch.manual_seed(0)
    observed, step = Observed(Root(lambda self, x: self.act(x))), step_on(torch.randn(9, 7))
    observed.learn(step)
    observed.model.call = call
    assert_equal(observed.step(step), observed.step(step, modules=False))
    assert observed.listened == 1
    for _ in range(AGREED):
        assert list(observed.step(step).kinds) == layers
    assert observed.listened == 1


def test_what_hooks_of_others_make_of_an_output_is_not_the_activation() -> None:
    torch.manual_seed(0)
    observed, step = Observed(nn.Sequential(nn.Linear(7, 6), nn.Tanh())), step_on(torch.randn(9, 7))
    observed.learn(step)
    handles = [
        observed.model[1].register_forward_hook(lambda module, args, output: 3 * output),
        observed.model[1].register_forward_pre_hook(lambda module, args: (args[0] / 2,)),
    ]
    listening = observed.step(step)
    assert_equal(listening, observed.step(step, modules=False))
    assert [len(observed.model[1]._forward_hooks), len(observed.model[1]._forward_pre_hooks)] == [1, 1]
    for handle in handles:
        handle.remove()


def test_a_module_that_is_called_by_keyword() -> None:
    torch.manual_seed(0)
    observed, step = Observed(Root(lambda self, x: self.act(input=x))), step_on(torch.randn(9, 7))
    observed.learn(step)
    assert_equal(observed.step(step), observed.step(step, modules=False))
    assert observed.listened == 1


def test_evaluation_is_not_observed() -> None:
    torch.manual_seed(0)
    observed, step = Observed(Root(lambda self, x: self.act(x))), step_on(torch.randn(9, 7))
    observed.learn(step)
    observed.model.eval()
    assert observed.step(step).kinds == {}
    assert observed.listened == 1


def test_nothing_stays_behind_after_an_exception(leftovers: Leftovers) -> None:
    torch.manual_seed(0)
    observed, step = Observed(Root(lambda self, x: self.act(x))), step_on(torch.randn(9, 7))
    observed.learn(step)

    def fails(self: Root, x: Tensor) -> Tensor:
        self.act(x)
        raise RuntimeError("on purpose")

    observed.model.call, call = fails, observed.model.call
    with pytest.raises(RuntimeError, match="on purpose"):
        observed.step(step)
    assert observed.listened == 1
    assert leftovers(observed.model) == []
    assert not observed.model.act._forward_hooks
    observed.model.call = call
    assert_equal(observed.step(step), observed.step(step, modules=False))


def test_activation_checkpoints_are_seen_once() -> None:
    torch.manual_seed(0)

    def call(self: Root, x: Tensor) -> Tensor:
        return torch.utils.checkpoint.checkpoint(self.act, x, use_reentrant=False)

    observed, step = Observed(Root(call)), step_on(torch.randn(9, 7))
    observed.learn(step)
    listening = observed.step(step)
    assert observed.listened == 1
    assert listening.activations["act"].output[0] == 63
    assert_equal(listening, observed.step(step, modules=False))


def test_many_networks_at_once() -> None:
    """Under `vmap` the module sees the tensors of three networks as one."""
    torch.manual_seed(0)
    scales = torch.rand(3)
    call = lambda self, x: torch.vmap(lambda scale: self.act(scale * x))(scales)  # noqa: E731
    observed, step = Observed(Root(call)), step_on(torch.randn(9, 7))
    observed.learn(step)
    listening = observed.step(step)
    assert observed.listened == 1
    assert listening.activations["act"].output[0] == 3 * 63
    assert_equal(listening, observed.step(step, modules=False))


@pytest.mark.parametrize("inside", [False, True])
def test_compiled_modules_are_not_compiled_again(inside: bool) -> None:
    torch.manual_seed(0)
    torch._dynamo.reset()
    compilations: list[int] = []

    def backend(module: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable:
        compilations.append(1)
        return module.forward

    act: nn.Module = nn.Sequential(nn.Linear(7, 6), nn.Tanh())
    model = nn.Sequential(torch.compile(act, backend=backend)) if inside else torch.compile(act, backend=backend)
    observed, x = Observed(model), torch.randn(9, 7)
    for _ in range(AGREED + 5):
        model(x)  # not observed
        record = observed.step(step_on(x))
    assert observed.listened == 4
    assert_equal(record, observed.step(step_on(x), modules=False))
    assert len(compilations) == 1
