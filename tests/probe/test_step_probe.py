"""One observed optimizer step: parameters, several optimizers, and that everything is taken off again."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from bnlm.callbacks.observed_step import observed_steps
from bnlm.probe import StepProbe, StepRecord, Wanted
from bnlm.stats import square_sum_of, std_of

Observe = Callable[..., StepRecord]
Leftovers = Callable[..., list[str]]


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def two_layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3), nn.ReLU()).double()


def copies(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
        lambda p: torch.optim.AdamW(p, lr=1e-3),
        lambda p: torch.optim.SGD(p, lr=0.1, foreach=True),
        lambda p: torch.optim.Adam(p, lr=0.1, fused=True),
    ],
)
def test_gradients_and_real_updates(observe: Observe, make: Callable[..., torch.optim.Optimizer]) -> None:
    model, x = two_layers(), drawn(11, 5)
    optimizer = make(model.parameters())
    model(3 * x).sum().backward()  # momentum and moments are not empty
    optimizer.step()
    optimizer.zero_grad()
    before = copies(model)
    gradients = dict(zip(before, torch.autograd.grad(model(x).square().sum(), list(model.parameters())), strict=True))
    record = observe(model, x, [optimizer])
    after = copies(model)
    assert list(record.parameters) == list(before)
    statistics = observed_steps([record], [0])[0].statistics
    for name, seen in record.parameters.items():
        assert seen.shape == before[name].shape
        assert_close(std_of(seen.gradient), gradients[name].std(), rtol=1e-10, atol=0)
        ratio = float(gradients[name].std() / before[name].std())
        assert statistics["grad_to_data"][name] == pytest.approx(ratio, rel=1e-10)
        moved = float(((after[name] - before[name]).std() / before[name].std()).log10())
        assert statistics["update_to_data"][name] == pytest.approx(moved, rel=1e-10)
        assert statistics["data_std"][name] == pytest.approx(float(before[name].std()), rel=1e-10)
    norm = torch.cat([g.reshape(-1) for g in gradients.values()]).norm()
    assert statistics["gradient_norm"]["total"] == pytest.approx(float(norm), rel=1e-10)


def test_only_what_is_wanted_is_looked_at(observe: Observe) -> None:
    model, x = two_layers(), drawn(11, 5)
    assert observe(model, x, wanted=Wanted(activations=True)).parameters == {}
    gradients = observe(model, x, wanted=Wanted(gradients=True))
    assert gradients.activations == {}
    assert all(p.update is None and p.gradient_histogram is None for p in gradients.parameters.values())
    updates = observe(model, x, wanted=Wanted(updates=True))
    assert all(p.gradient is None for p in updates.parameters.values())
    assert list(observed_steps([updates], [0])[0].statistics) == ["update_to_data", "data_std"]
    assert Wanted(gradients=True) | Wanted(maps=True) == Wanted(gradients=True, maps=True)


def test_gradients_are_those_before_clipping(observe: Observe) -> None:
    model, x = two_layers(), drawn(11, 5)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    norms: list[Tensor] = []

    def step(probe: StepProbe) -> None:
        model(x).square().sum().backward()
        probe.after_backward()
        norms.append(nn.utils.clip_grad_norm_(model.parameters(), 1e-3))
        optimizer.step()

    before = copies(model)
    record = observe(model, x, [optimizer], step)
    assert norms[0] > 1
    assert observed_steps([record], [0])[0].statistics["gradient_norm"]["total"] == pytest.approx(
        float(norms[0]), rel=1e-10
    )
    for name, seen in record.parameters.items():  # the change is of the clipped step
        moved = model.get_parameter(name) - before[name]
        assert_close(std_of(seen.update), moved.detach().std(), rtol=1e-10, atol=0)
        assert moved.norm() <= 1.001e-3


def test_a_gradient_scale_is_taken_out(observe: Observe) -> None:
    model, x = two_layers(), drawn(11, 5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step(scale: float) -> Callable[[StepProbe], None]:
        def run(probe: StepProbe) -> None:
            optimizer.zero_grad()
            (scale * model(x).square().sum()).backward()
            probe.after_backward(torch.tensor(scale) if scale != 1 else None)

        return run

    scaled = observe(model, x, [optimizer], step(1024.0))
    plain = observe(model, x, [optimizer], step(1.0))
    for name, seen in plain.parameters.items():
        assert_close(scaled.parameters[name].gradient, seen.gradient, rtol=1e-10, atol=0)
        assert_close(scaled.parameters[name].gradient_histogram, seen.gradient_histogram, rtol=1e-10, atol=0)
    for layer, seen in plain.activations.items():
        assert_close(scaled.activations[layer].gradient, seen.gradient, rtol=1e-10, atol=0)
        assert_close(scaled.activations[layer].gradient_histogram, seen.gradient_histogram, rtol=1e-10, atol=0)
        assert_close(scaled.activations[layer].output, seen.output, rtol=0, atol=0)


def test_parameters_without_gradient(observe: Observe) -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(5, 3), nn.Linear(4, 2)
            self.frozen, self.foreign = nn.Linear(3, 2), nn.Linear(2, 2)
            self.frozen.requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            return self.foreign(self.frozen(torch.tanh(self.used(x))))

    model = Unused()
    own = [p for name, p in model.named_parameters() if not name.startswith("foreign")]
    seen = observe(model, torch.randn(6, 5), [torch.optim.SGD(own, lr=0.1)])
    record, updates = seen.parameters, observed_steps([seen], [0])[0].statistics["update_to_data"]
    assert {name for name, p in record.items() if p.gradient is not None} == {"used.weight", "used.bias"}
    assert "foreign.weight" not in record  # no optimizer of ours trains it
    assert math.isfinite(updates["used.weight"])
    for name in ("unused.weight", "frozen.weight"):
        assert updates[name] == -math.inf  # did not move


def test_a_stale_gradient_is_not_reported(observe: Observe) -> None:
    """A part that another backward pass reached, and this step's did not, has no gradient in it."""
    model, x = two_layers(), drawn(6, 5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step(probe: StepProbe) -> None:
        model(x).square().sum().backward()
        probe.after_backward()
        optimizer.zero_grad()
        model[1](model[0](x)).sum().backward()
        probe.after_backward()
        optimizer.step()

    record = observe(model, x, [optimizer], step)
    assert {name for name, p in record.parameters.items() if p.gradient is not None} == {"0.weight", "0.bias"}
    assert record.parameters["2.weight"].gradient_histogram is None
    assert_close(
        torch.tensor(observed_steps([record], [0])[0].statistics["gradient_norm"]["total"], dtype=torch.float64),
        torch.cat([model[0].weight.grad.reshape(-1), model[0].bias.grad]).norm(),
        rtol=1e-10,
        atol=0,
    )


def test_tied_weights_are_one_parameter(observe: Observe) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.output = nn.Embedding(9, 4), nn.Linear(4, 9, bias=False)
            self.output.weight = self.embedding.weight

        def forward(self, idx: Tensor) -> Tensor:
            return self.output(torch.tanh(self.embedding(idx)))

    model, idx = Tied(), torch.tensor([[1, 3], [3, 8], [0, 2]])
    before = copies(model)["embedding.weight"].double()
    (gradient,) = torch.autograd.grad(model(idx).square().sum(), [model.embedding.weight])
    ratios = observed_steps([observe(model, idx)], [0])[0].statistics["grad_to_data"]
    assert ratios == {"embedding.weight": pytest.approx(float(gradient.double().std() / before.std()), rel=1e-6)}


def test_sparse_embedding_gradients(observe: Observe) -> None:
    torch.manual_seed(0)
    sparse, dense = nn.Embedding(9, 4, sparse=True), nn.Embedding(9, 4)
    dense.load_state_dict(sparse.state_dict())
    idx = torch.tensor([[1, 3], [3, 8], [0, 3]])  # 3 thrice: a gradient that is not coalesced
    records = [observe(model, idx).parameters["weight"] for model in (sparse, dense)]
    for field in ("gradient", "data", "update", "gradient_histogram"):
        assert_close(getattr(records[0], field), getattr(records[1], field), rtol=1e-6, atol=1e-9)
    assert records[0].gradient[0] == 36


def test_complex_parameters_are_their_real_and_imaginary_parts(observe: Observe) -> None:
    class Spectrum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(6, 4, dtype=torch.complex128))

        def forward(self, x: Tensor) -> Tensor:
            return torch.view_as_real(x.to(torch.complex128) @ self.weight)

    torch.manual_seed(0)
    model = Spectrum()
    before = torch.view_as_real(model.weight.detach().clone())
    record = observe(model, torch.randn(5, 6)).parameters["weight"]
    assert model.weight.grad is not None
    gradient = torch.view_as_real(model.weight.grad)
    for sums, of in ((record.data, before), (record.gradient, gradient), (record.update, -0.1 * gradient)):
        torch.testing.assert_close(std_of(sums), of.std(), rtol=1e-12, atol=0)
        torch.testing.assert_close(square_sum_of(sums).sqrt(), of.norm(), rtol=1e-12, atol=0)


def test_each_of_several_optimizers_steps_once(observe: Observe, leftovers: Leftovers) -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict({"g": nn.Linear(5, 4), "d": nn.Linear(4, 3)}).double()
    x = drawn(6, 5)
    first, second = (torch.optim.SGD(model[name].parameters(), lr=0.1) for name in ("g", "d"))
    states: list[list[str]] = []
    before = copies(model)
    gradients: dict[str, Tensor] = {}

    def step(probe: StepProbe) -> None:
        for rounds in range(2):  # in the second round nothing is looked at any more
            for name, optimizer in (("d", second), ("g", first)):
                model.zero_grad()
                scores = model["d"](torch.tanh(model["g"](x)))
                (scores.square() if name == "d" else 2 - scores).sum().backward()
                probe.after_backward()
                if rounds == 0:
                    gradients.update({f"{name}.{n}": p.grad.clone() for n, p in model[name].named_parameters()})
                optimizer.step()
                if rounds == 0:
                    moved.update({n: p.detach() - before[n] for n, p in model.named_parameters() if n[0] == name})
                    moved.update({n: v.clone() for n, v in moved.items()})
                states.append(leftovers(model))

    moved: dict[str, Tensor] = {}
    record = observe(model, x, [first, second], step)
    assert states[0] != []
    assert states[1:] == [[], [], []]
    assert record.activations["tanh"].output[0] == 2 * 6 * 4  # both optimizers' forwards, not those of the second round
    assert set(record.parameters) == set(before)
    updates = observed_steps([record], [0])[0].statistics["update_to_data"]
    for name, seen in record.parameters.items():
        assert_close(std_of(seen.gradient), gradients[name].std(), rtol=1e-10, atol=0)
        assert updates[name] == pytest.approx(float((moved[name].std() / before[name].std()).log10()), rel=1e-10)


def test_a_second_step_of_one_optimizer_is_not_looked_at(observe: Observe) -> None:
    model, x = two_layers(), drawn(6, 5)
    parts = [model[0].parameters(), model[2].parameters()]
    fast, slow = (torch.optim.SGD(part, lr=0.1) for part in parts)
    after_first: dict[str, Tensor] = {}
    before = copies(model)
    gradients = torch.autograd.grad(model(x).square().sum(), list(model[0].parameters()))

    def step(probe: StepProbe) -> None:
        for _ in range(3):
            model(x).square().sum().backward()
            fast.step()
            if not after_first:
                after_first.update(copies(model))
        slow.step()

    record = observe(model, x, [fast, slow], step).parameters
    moved = (after_first["0.weight"] - before["0.weight"]).std()
    assert_close(std_of(record["0.weight"].update), moved, rtol=1e-10, atol=0)
    assert_close(std_of(record["0.weight"].gradient), gradients[0].std(), rtol=1e-10, atol=0)
    assert record["2.weight"].update is not None


@pytest.mark.parametrize(
    "wanted", [Wanted(gradients=True, updates=True), Wanted(gradients=True)], ids=["updates too", "gradients"]
)
def test_the_gradient_of_a_closure_that_nobody_reports(observe: Observe, wanted: Wanted) -> None:
    """Not the one that an earlier backward pass has left; and beside the parameters before the step."""
    model, x = two_layers(), drawn(6, 5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    model(x).sum().backward()  # an earlier one
    before = copies(model)
    gradients = dict(zip(before, torch.autograd.grad(model(x).square().sum(), list(model.parameters())), strict=True))

    def step(probe: StepProbe) -> None:
        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = model(x).square().sum()
            loss.backward()
            return loss

        optimizer.step(closure)

    record = observe(model, x, [optimizer], step, wanted)
    assert list(record.parameters) == list(before)
    for name, seen in record.parameters.items():
        assert_close(std_of(seen.gradient), gradients[name].std(), rtol=1e-10, atol=0)
        assert_close(std_of(seen.data), before[name].std(), rtol=1e-10, atol=0)


def test_lbfgs_calls_its_closure_in_the_step(observe: Observe) -> None:
    model, x = two_layers(), drawn(6, 5)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=3)
    before = copies(model)

    def step(probe: StepProbe) -> None:
        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = model(x).square().sum()
            loss.backward()
            probe.after_backward()
            return loss

        optimizer.step(closure)

    record = observe(model, x, [optimizer], step)
    moved = (model[0].weight.detach() - before["0.weight"]).std()
    assert_close(std_of(record.parameters["0.weight"].update), moved, rtol=1e-10, atol=0)
    assert list(record.activations) == ["1", "3"]


class Fails(torch.autograd.Function):
    """Raises in the backward pass."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        raise RuntimeError("in backward")


@pytest.mark.parametrize("where", ["forward", "backward", "step"])
@pytest.mark.parametrize("compiled", [False, True])
def test_nothing_stays_behind_after_an_exception(where: str, compiled: bool, leftovers: Leftovers) -> None:
    class Failing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = torch.tanh(x)
            if where == "forward":
                raise RuntimeError("in forward")
            return Fails.apply(x) if where == "backward" else x

    class FailingStep(torch.optim.SGD):
        def step(self, closure: object = None) -> None:
            raise RuntimeError("in step")

    model = nn.Sequential(nn.Linear(5, 4), Failing())
    if compiled:
        model[0] = torch.compile(model[0], backend="eager")
    optimizer = (FailingStep if where == "step" else torch.optim.SGD)(model.parameters(), lr=0.1)
    before = dict(optimizer._optimizer_step_pre_hooks), dict(optimizer._optimizer_step_post_hooks)
    probe = StepProbe(model, [optimizer], Wanted(activations=True, gradients=True, updates=True))
    probe.attach()
    with pytest.raises(RuntimeError, match=f"in {where}"):  # noqa: PT012  (which of the three raises is the parameter)
        model(torch.randn(6, 5)).sum().backward()
        optimizer.step()
    assert leftovers(model) != []
    for _ in range(2):
        probe.detach()
        assert leftovers(model) == []
        assert (dict(optimizer._optimizer_step_pre_hooks), dict(optimizer._optimizer_step_post_hooks)) == before
    assert not probe.done


def test_an_error_in_attach_leaves_nothing(monkeypatch: pytest.MonkeyPatch, leftovers: Leftovers) -> None:
    model = two_layers()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    monkeypatch.setattr(torch.compiler, "set_stance", lambda stance: 1 / 0)
    probe = StepProbe(model, [optimizer], Wanted(activations=True, updates=True))
    with pytest.raises(ZeroDivisionError):
        probe.attach()
    monkeypatch.undo()
    assert leftovers(model) == []
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks


def test_a_mode_entered_meanwhile_stays_on_top(leftovers: Leftovers) -> None:
    """The probe is done inside a user's `with torch.device`; it leaves the stack at the next `detach`."""
    model = two_layers().float()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    probe = StepProbe(model, [optimizer], Wanted(activations=True))
    probe.attach()
    with torch.device("cpu"):
        model(torch.randn(6, 5)).sum().backward()
        optimizer.step()
        assert probe.done
        probe.detach()
        assert len(leftovers()) == 2
    probe.detach()
    assert leftovers() == []


def test_training_is_the_same_observed_or_not(observe: Observe) -> None:
    x = drawn(11, 5)
    weights = []
    for observed in (False, True):
        model = two_layers()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            if observed:
                observe(model, x, [optimizer])
            else:
                model(x).square().sum().backward()
                optimizer.step()
        weights.append(torch.cat([p.reshape(-1) for p in model.parameters()]))
    assert weights[0].equal(weights[1])


# --- compiled modules -------------------------------------------------------------------------------------------------


class Inner(nn.Module):
    """A module activation and a call, for torch.compile."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.act = nn.Linear(5, 4), nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.act(self.linear(x)))


@pytest.mark.parametrize("how", ["wrapped", "in place", "whole"])
def test_compiled_modules_are_seen_and_stay_compiled(observe: Observe, how: str) -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)
    calls: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: object) -> Callable[..., object]:
        calls.append(0)

        def run(*args: Tensor) -> object:
            calls[-1] += 1
            return graph(*args)

        return run

    inner = Inner()
    model: nn.Module = nn.Sequential()
    model.add_module("inner", torch.compile(inner, backend=backend) if how == "wrapped" else inner)
    if how == "in place":
        inner.compile(backend=backend)
    elif how == "whole":
        model = torch.compile(model, backend=backend)
    x = torch.randn(6, 5)
    tanh = torch.tanh(inner.linear(x)).detach()
    model(x).sum().backward()
    assert calls == [1]
    for _ in range(2):
        record = observe(model, x, [torch.optim.SGD(model.parameters(), lr=0.0)])
        assert list(record.activations) == ["inner.act", "inner.relu"]
        assert list(record.parameters) == ["inner.linear.weight", "inner.linear.bias"]
        seen = record.activations["inner.act"]
        assert_close(std_of(seen.output), tanh.double().std(), rtol=1e-6, atol=0)
        assert seen.gradient is not None
        assert calls == [1]  # the observed step ran without the compiled code
    model(x)
    assert sum(calls) == 2
    assert len(calls) == 1  # and the others did not have to be compiled again
    torch._dynamo.reset()
