"""What is measured on activations, against float64 recomputations with plain torch."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bnlm.probe import StepProbe, StepRecord, Wanted
from bnlm.stats import MAX_ELEMENTS, bounded, mean_of, std_of

Observe = Callable[..., StepRecord]
ACTIVATIONS = Wanted(activations=True)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def two_layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3), nn.ReLU()).double()


def close(sums: Tensor | None, *values: Tensor) -> None:
    """The moment sums are those of all `values` together."""
    assert sums is not None
    together = torch.cat([v.detach().reshape(-1) for v in values]).double()
    assert sums[0] == together.numel()
    torch.testing.assert_close(mean_of(sums), together.mean(), rtol=1e-10, atol=1e-15)
    torch.testing.assert_close(std_of(sums), together.std(), rtol=1e-10, atol=0)


def by_hand(model: nn.Sequential, x: Tensor, scale: float = 1.0) -> dict[str, list[Tensor]]:
    """Input, output and output's gradient of both activations of `two_layers`, of the loss `scale * sum(squares)`."""
    first = model[0](x)
    tanh = torch.tanh(first)
    second = tanh @ model[2].weight.T + model[2].bias
    relu = second.clamp(min=0)
    tanh_gradient, relu_gradient = torch.autograd.grad(scale * relu.square().sum(), [tanh, relu])
    return {"1": [first, tanh, tanh_gradient], "3": [second, relu, relu_gradient]}


def test_a_plain_step(observe: Observe) -> None:
    model, x = two_layers(), 4 * drawn(11, 5)
    expected = by_hand(model, x)
    record = observe(model, x)
    assert list(record.activations) == ["1", "3"]
    assert record.sums["output gradient"].names == ["1", "3"]  # from the input on, as all else
    assert list(record.histograms["activation_gradients"]) == ["1", "3"]
    for layer, (before, after, gradient) in expected.items():
        close(record.activations[layer].input, before)
        close(record.activations[layer].output, after)
        close(record.activations[layer].gradient, gradient)
    tanh, relu = record.activations["1"], record.activations["3"]
    assert tanh.flat[:2].tolist() == [77, (expected["1"][1].abs() > 0.97).sum()]
    assert tanh.flat_map.equal(expected["1"][1].abs() > 0.97)
    assert relu.flat is None
    assert relu.responded.equal((expected["3"][1] > 0).any(0))
    for seen, value in ((tanh.histogram, expected["1"][1]), (relu.gradient_histogram, expected["3"][2])):
        assert seen[2:].tolist() == np.histogram(value.detach().numpy(), bins=64)[0].tolist()


def test_micro_batches_are_pooled(observe: Observe) -> None:
    model, batches = two_layers(), [drawn(11, 5), 3 * drawn(6, 5, seed=1) + 1, drawn(2, 5, seed=2)]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    parts = [by_hand(model, x, scale=1 / 3) for x in batches]

    def step(probe: StepProbe) -> None:
        for x in batches:
            (model(x).square().sum() / 3).backward()
            probe.after_backward()
        optimizer.step()

    record = observe(model, batches[0], [optimizer], step)
    assert list(record.activations) == ["1", "3"]
    for layer, activation in record.activations.items():
        for place, sums in enumerate((activation.input, activation.output, activation.gradient)):
            close(sums, *(part[layer][place] for part in parts))
    outputs = torch.cat([part["1"][1] for part in parts])
    assert record.activations["1"].flat[:2].tolist() == [19 * 7, (outputs.abs() > 0.97).sum()]
    assert record.activations["3"].responded.equal((torch.cat([part["3"][1] for part in parts]) > 0).any(0))
    assert record.activations["1"].histogram[2:].sum() == 77  # of the first micro-batch


def test_micro_batches_of_other_lengths(observe: Observe) -> None:
    """After a convolution the units are its channels, however long the sequence is."""
    model = nn.Sequential(nn.Conv1d(2, 3, 1), nn.ReLU())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step(probe: StepProbe) -> None:
        for length in (4, 6, 6):
            model(torch.ones(5, 2, length)).sum().backward()
            probe.after_backward()
        optimizer.step()

    record = observe(model, torch.empty(0), [optimizer], step).activations["1"]
    assert record.output[0] == 5 * 3 * (4 + 6 + 6)
    assert record.responded is not None
    assert record.responded.shape == (3,)


@pytest.mark.parametrize(
    ("model", "shape", "units"),
    [
        (nn.Sequential(nn.Conv1d(3, 5, 1), nn.Dropout(0.1), nn.ReLU()), (2, 3, 7), 5),
        (nn.Sequential(nn.Conv1d(3, 5, 1), nn.BatchNorm1d(5), nn.ReLU()), (2, 3, 7), 5),
        (nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5), nn.ReLU()), (2, 7, 3), 5),
        (nn.Sequential(nn.Linear(3, 5), nn.ReLU()), (2, 4, 7, 3), 5),
        (nn.Sequential(nn.Conv2d(3, 5, 1), nn.ReLU()), (2, 3, 4, 7), 5),
        (nn.ReLU(), (2, 4, 7), 7),
        (nn.ReLU(), (2, 3, 4, 7), 3),
    ],
)
def test_units_are_the_channels_of_the_layer_that_made_them(
    observe: Observe, model: nn.Module, shape: tuple[int, ...], units: int
) -> None:
    (record,) = observe(model, torch.randn(shape), wanted=ACTIVATIONS).activations.values()
    assert record.responded is not None
    assert record.responded.shape == (units,)


@pytest.mark.parametrize(
    "in_place",
    [nn.ReLU(inplace=True), nn.LeakyReLU(0.1, inplace=True), nn.Hardtanh(inplace=True)],
    ids=lambda m: type(m).__name__,
)
def test_the_input_is_measured_before_an_activation_overwrites_it(observe: Observe, in_place: nn.Module) -> None:
    model, x = nn.Sequential(two_layers()[0], in_place), drawn(11, 5)
    before = model[0](x)
    record = observe(model, x, wanted=ACTIVATIONS).activations["1"]
    close(record.input, before)
    close(record.output, type(in_place)(*([0.1] if isinstance(in_place, nn.LeakyReLU) else []))(before))
    assert record.gradient is not None


def test_the_gradient_is_the_outputs_even_if_it_is_changed_in_place(observe: Observe) -> None:
    class Scaled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = F.softplus(x)
            y *= 3
            return y

    x = drawn(4, 6).requires_grad_()
    record = observe(Scaled(), x, wanted=ACTIVATIONS).activations["softplus"]
    close(record.gradient, 18 * F.softplus(x))  # d (3y)^2 / dy
    close(record.output, F.softplus(x))


@pytest.mark.parametrize("shape", [(6, 5), (4, 3, 5), (4, 5, 3, 2)], ids=str)
def test_units_of_every_layout(observe: Observe, shape: tuple[int, ...]) -> None:
    x = 3 * drawn(*shape)
    dim = 1 if len(shape) == 4 else -1
    x.select(dim, 2).sub_(50)
    record = observe(nn.Sequential(nn.Sigmoid()), x).activations["0"]
    assert record.responded.tolist() == [True, True, False, True, True]
    p = torch.sigmoid(x)
    expected = ((p < 0.015) | (p > 0.985)).movedim(dim, -1).reshape(-1, 5)
    assert record.flat_map.equal(expected[:64])
    assert record.flat[:2].tolist() == [x.numel(), expected.sum()]


def test_a_large_activation_is_thinned_and_its_map_is_small(observe: Observe) -> None:
    x = (2 * drawn(1024, 4 * MAX_ELEMENTS // 1024).float()).requires_grad_()
    record = observe(nn.Sequential(nn.Tanh()), x).activations["0"]
    seen = bounded(torch.tanh(x), 1)
    close(record.output, seen)
    close(record.input, bounded(x, 1))
    close(record.gradient, 2 * seen)
    assert record.responded.shape == (1024,)
    assert record.flat_map.equal(seen[:64, :512].abs() > 0.97)


def test_an_activation_without_backward_has_no_gradient(observe: Observe) -> None:
    model, x = two_layers(), drawn(6, 5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step(probe: StepProbe) -> None:
        with torch.no_grad():
            model(x)
        optimizer.step()

    record = observe(model, x, [optimizer], step).activations
    assert record["1"].gradient is None
    close(record["1"].output, torch.tanh(model[0](x)))


def test_low_precision_is_summed_in_full(observe: Observe) -> None:
    model, x = two_layers().float(), drawn(300, 5).float()
    with torch.autocast("cpu", torch.bfloat16):
        expected = torch.tanh(model[0](x))
        record = observe(model, x, wanted=ACTIVATIONS).activations["1"]
    assert expected.dtype == torch.bfloat16
    close(record.output, expected)


class Checkpointed(nn.Module):
    """The first Linear and tanh are computed again in the backward pass."""

    def __init__(self, model: nn.Sequential, reentrant: bool) -> None:
        super().__init__()
        self.first, self.second, self.reentrant = model[:2], model[2:], reentrant

    def forward(self, x: Tensor) -> Tensor:
        hidden = checkpoint(self.first, x, use_reentrant=self.reentrant)
        return self.second(hidden)


@pytest.mark.parametrize("backward", [Tensor.backward, torch.autograd.backward], ids=["method", "function"])
@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing_counts_once(
    observe: Observe, reentrant: bool, backward: Callable[[Tensor], None]
) -> None:
    """However the backward pass is begun, in which the checkpointed part is computed again."""
    model, x = two_layers(), drawn(11, 5)
    expected = by_hand(model, x)
    optimizer, whole = torch.optim.SGD(model.parameters(), lr=0.1), Checkpointed(model, reentrant)

    def step(probe: StepProbe) -> None:
        backward(whole(x.requires_grad_()).square().sum())
        optimizer.step()

    record = observe(whole, x, [optimizer], step).activations
    assert list(record) == ["first.1", "second.3"]
    for layer, same in (("first.1", "1"), ("second.3", "3")):
        close(record[layer].input, expected[same][0])
        close(record[layer].output, expected[same][1])
        close(record[layer].gradient, expected[same][2])


def test_hooks_of_an_old_graph_do_nothing_after_the_step(observe: Observe) -> None:
    """A graph that outlives its observed step, as with `retain_graph`, leaves the record alone."""
    model, x = two_layers(), drawn(6, 5)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(2))], lr=0.1)  # leaves the graph's weights as they are
    kept: list[Tensor] = []

    def step(probe: StepProbe) -> None:
        kept.append(model(x).sum())
        kept[0].backward(retain_graph=True)
        optimizer.step()

    record = observe(model, x, [optimizer], step).activations["1"]
    before = record.gradient.clone()
    kept[0].backward()
    assert record.gradient.equal(before)


def test_micro_batches_of_different_units_have_none(observe: Observe) -> None:
    """After a width that differs they are not the same units, whatever comes then."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(2))], lr=0.1)

    def step(probe: StepProbe) -> None:
        for width in (4, 6, 4):
            model(drawn(3, width).requires_grad_()).sum().backward()
            probe.after_backward()
        optimizer.step()

    model = nn.Sequential(nn.ReLU())
    record = observe(model, torch.empty(0), [optimizer], step).activations["0"]
    assert record.responded is None
    assert record.output[0] == 3 * (4 + 6 + 4)


def test_functional_training_is_seen(observe: Observe) -> None:
    """Weights passed by `torch.func.functional_call` run through the same modules."""
    model, x = two_layers(), drawn(6, 5)
    doubled = {name: 2 * p for name, p in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step(probe: StepProbe) -> None:
        torch.func.functional_call(model, doubled, x).square().sum().backward()
        optimizer.step()

    record = observe(model, x, [optimizer], step).activations["1"]
    close(record.output, torch.tanh(F.linear(x, doubled["0.weight"], doubled["0.bias"])))


def test_the_gradient_of_a_penalty_is_not_that_of_the_loss(observe: Observe) -> None:
    """As of the gradient penalty of Gulrajani et al. 2017 (arXiv 1704.00028)."""
    model, x = two_layers(), drawn(6, 5).requires_grad_()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)

    def step(probe: StepProbe) -> None:
        output = model(x)
        (slope,) = torch.autograd.grad(100 * output.sum(), x, retain_graph=True)
        (output.square().sum() + slope.square().sum()).backward()
        optimizer.step()

    seen = observe(model, x, [optimizer], step).activations["1"].gradient
    hidden = torch.tanh(model[0](x))
    hidden.retain_grad()
    model[2:](hidden).square().sum().backward()
    close(seen, hidden.grad)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
def test_nested_tensors_are_computed_and_not_measured(layout: torch.layout, observe: Observe) -> None:
    model = nn.Linear(5, 3).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step(probe: StepProbe) -> None:
        x = torch.nested.nested_tensor([drawn(2, 5), drawn(4, 5)], layout=layout)
        torch.cat(list(torch.relu(model(x)).unbind())).sum().backward()
        optimizer.step()

    assert observe(model, drawn(2, 5), [optimizer], step).activations == {}
