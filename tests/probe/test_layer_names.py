"""Which name an activation gets, wherever it is, and that every spelling of every activation is seen."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnlm.probe import ActivationTap, StepProbe, StepRecord, Wanted

Observe = Callable[..., StepRecord]


class Calls(nn.Module):
    """Calls functions in its own forward."""

    def __init__(self, *functions: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.functions = functions

    def forward(self, x: Tensor) -> Tensor:
        for function in self.functions:
            x = function(x)
        return x


class Root(nn.Module):
    """Submodules and calls of its own, in an order of its own."""

    def __init__(self, run: Callable[["Root", Tensor], Tensor], **modules: nn.Module) -> None:
        super().__init__()
        self.run = run
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


X = torch.linspace(-3, 3, 20).reshape(4, 5)


def names(observe: Observe, root: nn.Module) -> list[str]:
    return list(observe(root, X).activations)


def test_modules_are_named_by_their_path(observe: Observe) -> None:
    root = nn.Sequential()
    root.add_module("encoder", nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 6), nn.ReLU()))
    root.add_module("act", nn.Sigmoid())
    assert names(observe, root) == ["encoder.1", "encoder.3", "act"]


def test_calls_are_named_by_the_module_around_them(observe: Observe) -> None:
    block = Calls(torch.tanh, F.relu, lambda x: x.sigmoid(), torch.tanh, torch.tanh)
    root = nn.Sequential()
    root.add_module("encoder", nn.Sequential())
    root.encoder.add_module("block1", block)
    assert names(observe, root) == [
        "encoder.block1.tanh",
        "encoder.block1.relu",
        "encoder.block1.sigmoid",
        "encoder.block1.tanh_1",
        "encoder.block1.tanh_2",
    ]


def test_calls_in_the_root_have_the_functions_name_alone(observe: Observe) -> None:
    root = Root(lambda self, x: torch.tanh(self.inner(torch.tanh(x))), inner=Calls(torch.tanh))
    assert names(observe, root) == ["tanh", "inner.tanh", "tanh_1"]


def test_a_module_called_twice_counts(observe: Observe) -> None:
    assert names(observe, Root(lambda self, x: self.act(self.act(x)), act=nn.Tanh())) == ["act", "act_1"]


def test_a_shared_module_has_its_first_path(observe: Observe) -> None:
    act = nn.Tanh()
    assert names(observe, nn.Sequential(act, nn.Linear(5, 3), act)) == ["0", "0_1"]


def test_a_name_is_given_once(observe: Observe) -> None:
    """`act` called twice beside a module named `act_1`, whose width differs."""
    root = Root(
        lambda self, x: self.act_1(self.linear(self.act(self.act(x)))),
        act=nn.Tanh(),
        linear=nn.Linear(5, 3),
        act_1=nn.Tanh(),
    )
    record = observe(root, X)
    assert list(record.activations) == ["act", "act_1", "act_1_1"]
    assert [a.responded.numel() for a in record.activations.values()] == [5, 5, 3]


def test_modules_outside_the_root_belong_to_the_module_around(observe: Observe) -> None:
    hidden = [nn.Tanh()]  # in a plain list: not registered
    assert names(observe, Root(lambda self, x: self.inner(x), inner=Calls(hidden[0], torch.relu))) == [
        "inner.tanh",
        "inner.relu",
    ]


def test_an_exception_that_the_model_handles_itself_does_not_shift_names(observe: Observe) -> None:
    def failing(x: Tensor) -> Tensor:
        raise RuntimeError

    def run(self: Root, x: Tensor) -> Tensor:
        try:
            return self.inner(x)
        except RuntimeError:
            return torch.relu(x)

    assert names(observe, Root(run, inner=Calls(torch.tanh, failing))) == ["inner.tanh", "relu"]


MODULES = {
    nn.CELU: "celu", nn.ELU: "elu", nn.GELU: "gelu", nn.Hardshrink: "hardshrink", nn.Hardsigmoid: "hardsigmoid",
    nn.Hardswish: "hardswish", nn.Hardtanh: "hardtanh", nn.LeakyReLU: "leaky_relu", nn.LogSigmoid: "logsigmoid",
    nn.Mish: "mish", nn.PReLU: "prelu", nn.ReLU: "relu", nn.RReLU: "rrelu", nn.SELU: "selu",
    nn.Sigmoid: "sigmoid", nn.SiLU: "silu", nn.Softplus: "softplus", nn.Softshrink: "softshrink",
    nn.Softsign: "softsign", nn.Tanh: "tanh", nn.Tanhshrink: "tanhshrink",
}  # fmt: skip


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__)
def test_every_activation_module_is_seen_once(observe: Observe, module: type[nn.Module]) -> None:
    record = observe(nn.Sequential(nn.Linear(5, 3), module()), X)
    assert {layer: a.kind for layer, a in record.activations.items()} == {"1": MODULES[module]}


def test_relu6_keeps_its_limits(observe: Observe) -> None:
    """torch.nn computes it as a hardtanh from 0 to 6."""
    record = observe(nn.Sequential(nn.ReLU6()), torch.tensor([[-1.0, 0.5, 1.0, 5.9, 6.5]])).activations["0"]
    assert record.flat[:2].tolist() == [5, 2]


FUNCTIONS = {
    "F.gelu": (F.gelu, "gelu"), "F.silu": (F.silu, "silu"), "F.hardtanh": (F.hardtanh, "hardtanh"),
    "F.elu": (F.elu, "elu"), "F.selu": (F.selu, "selu"), "F.celu": (F.celu, "celu"), "F.mish": (F.mish, "mish"),
    "F.leaky_relu": (F.leaky_relu, "leaky_relu"), "F.softplus": (F.softplus, "softplus"),
    "F.logsigmoid": (F.logsigmoid, "logsigmoid"), "F.hardswish": (F.hardswish, "hardswish"),
    "F.hardsigmoid": (F.hardsigmoid, "hardsigmoid"), "F.relu6": (F.relu6, "relu6"), "F.tanh": (F.tanh, "tanh"),
    "F.sigmoid": (F.sigmoid, "sigmoid"), "F.softsign": (F.softsign, "softsign"), "F.rrelu": (F.rrelu, "rrelu"),
    "F.hardshrink": (F.hardshrink, "hardshrink"), "F.softshrink": (F.softshrink, "softshrink"),
    "F.tanhshrink": (F.tanhshrink, "tanhshrink"), "F.threshold": (lambda x: F.threshold(x, 0.1, 2.0), "threshold"),
    "F.relu_": (lambda x: F.relu_(x.clone()), "relu"), "F.relu in place": (lambda x: F.relu(x.clone(), True), "relu"),
    "torch.relu": (torch.relu, "relu"), "torch.sigmoid": (torch.sigmoid, "sigmoid"),
    "torch.selu_": (lambda x: torch.selu_(x.clone()), "selu"), "torch.celu": (torch.celu, "celu"),
    "torch.prelu": (lambda x: torch.prelu(x, torch.tensor([0.2])), "prelu"),
    "torch.special.expit": (torch.special.expit, "sigmoid"), "by keyword": (lambda x: torch.tanh(input=x), "tanh"),
    ".tanh()": (lambda x: x.tanh(), "tanh"), ".tanh_()": (lambda x: x.clone().tanh_(), "tanh"),
    ".relu()": (lambda x: x.relu(), "relu"), ".sigmoid_()": (lambda x: x.clone().sigmoid_(), "sigmoid"),
    ".hardshrink()": (lambda x: x.hardshrink(), "hardshrink"),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_spelling_is_seen_once(observe: Observe, name: str) -> None:
    function, kind = FUNCTIONS[name]
    record = observe(nn.Sequential(nn.Linear(5, 3), Calls(function)), X)
    assert {layer: a.kind for layer, a in record.activations.items()} == {f"1.{kind}": kind}


def test_what_has_no_values_is_passed_over(observe: Observe) -> None:
    """Empty, integer, complex and sparse inputs, and those inside of `torch.func.grad` are computed, not measured."""

    def run(self: Root, x: Tensor) -> Tensor:
        torch.tanh(x[:0])
        torch.tanh(torch.arange(3))
        torch.tanh(torch.ones(2, dtype=torch.complex64))
        torch.relu(x.detach().to_sparse())
        torch.vmap(torch.vmap(torch.tanh))(x)
        torch.func.grad(lambda v: torch.tanh(v).sum())(x)
        return torch.tanh(x)

    record = observe(Root(run), X)
    assert {layer: a.output[0].item() for layer, a in record.activations.items()} == {"tanh": 20}


@pytest.mark.parametrize("shape", [(), (6,)])
def test_gates_without_units_are_measured(observe: Observe, shape: tuple[int, ...]) -> None:
    """`(N,)` and `()` have no dimension of units: no unit can be dead there, and there is no map."""
    gate = nn.ParameterList([nn.Parameter(torch.full(shape, 0.5))])
    record = observe(Root(lambda self, x: torch.sigmoid(self.gate[0]) * x.sum(), gate=gate), X).activations["sigmoid"]
    assert record.output[0] == max(1, sum(shape))
    assert record.flat[:2].tolist() == [max(1, sum(shape)), 0]
    assert record.responded is None
    assert record.flat_map is None


def test_eval_mode_is_not_recorded(observe: Observe) -> None:
    root = nn.Sequential(nn.Linear(5, 3), nn.Tanh())
    optimizer = torch.optim.SGD(root.parameters(), lr=0.1)

    def step(probe: StepProbe) -> None:
        root.eval()
        root(10 * X)
        root.train()
        root(X).sum().backward()
        optimizer.step()

    record = observe(root, X, [optimizer], step, Wanted(activations=True))
    assert record.activations["1"].output[0] == 12
    assert list(record.activations) == ["1"]


def dice(x: Tensor) -> Tensor:
    return 1 - 2 * (x * TARGET).sum() / (x.sum() + TARGET.sum())


TARGET = (X > 1).float()


@pytest.mark.parametrize(
    ("forward", "expected"),
    [
        (lambda x: dice(x.sigmoid()), {"sigmoid"}),
        (lambda x: F.binary_cross_entropy(nn.Sigmoid()(x), TARGET), {"sigmoid"}),
        (lambda x: F.poisson_nll_loss(x.sigmoid(), TARGET), {"sigmoid"}),
        (lambda x: F.cross_entropy(F.linear(x.sigmoid(), torch.eye(5)), TARGET), set()),  # a hidden layer
        (lambda x: (x.sigmoid() @ torch.eye(5)).sum(), set()),
        (lambda x: dice(F.linear(x.sigmoid(), torch.eye(5)).sigmoid()), {"sigmoid_1"}),
        (lambda x: x.tanh().sum(), set()),
    ],
)
def test_probabilities_that_a_loss_is_made_of(
    observe: Observe, forward: Callable[[Tensor], Tensor], expected: set[str]
) -> None:
    x = X.clone().requires_grad_()
    assert observe(Calls(forward), x).heard.outputs == expected


@pytest.mark.parametrize(
    "forward",
    [
        lambda x: F.scaled_dot_product_attention(query=x[None], key=x[None], value=x[None])[0],
        lambda x: F.bilinear(input1=x, input2=x, weight=torch.ones(5, 5, 5)),
        lambda x: F.linear(input=x, weight=torch.eye(5)),
        lambda x: F.embedding(input=torch.arange(4), weight=torch.ones(4, 5)) + x,
    ],
)
def test_layers_that_are_called_by_keyword(forward: Callable[[Tensor], Tensor]) -> None:
    tap = ActivationTap(Calls(forward, torch.tanh), losses=True)
    tap.attach()
    try:
        F.mse_loss(tap.root(X.clone().requires_grad_()), X)
    finally:
        tap.detach()
    assert list(tap.record().activations) == ["tanh"]
