"""Activations under `torch.vmap` are measured, pooled over what is mapped."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state
from torch.testing import assert_close

from bnlm.probe import ActivationTap, StepRecord
from bnlm.stats import mean_of, std_of

Observe = Callable[..., StepRecord]


class Stacked(nn.Module):
    def __init__(self, in_dim: int) -> None:
        super().__init__()
        self.in_dim = in_dim
        torch.manual_seed(0)
        made = [nn.Sequential(nn.Linear(4, 6), nn.Tanh()).double() for _ in range(3)]
        self.inner = made[0]
        stacked, _ = stack_module_state(made)  # type: ignore[arg-type]
        self.held = nn.ParameterDict({k.replace(".", "_"): v.detach() for k, v in stacked.items()})

    def weights(self) -> dict[str, Tensor]:
        return {"0.weight": self.held["0_weight"], "0.bias": self.held["0_bias"]}

    def forward(self, x: Tensor) -> Tensor:
        return torch.vmap(lambda w, x: functional_call(self.inner, w, (x,)), in_dims=(0, self.in_dim))(
            self.weights(), x
        )


@pytest.mark.parametrize("in_dim", [0, 1])
def test_activations_and_their_gradients(observe: Observe, in_dim: int) -> None:
    torch.manual_seed(1)
    model, x = Stacked(in_dim), torch.randn(3, 5, 4, dtype=torch.float64)
    given = x if in_dim == 0 else x.transpose(0, 1)
    record = observe(model, given, [torch.optim.SGD(model.held.parameters(), lr=0.0)])
    (seen,) = record.activations.values()
    before = torch.einsum("rni,roi->rno", x, model.held["0_weight"]) + model.held["0_bias"][:, None]
    after = before.tanh()
    assert_close(std_of(seen.input), before.std(), rtol=1e-12, atol=0.0)
    assert_close(mean_of(seen.output), after.mean(), rtol=1e-12, atol=1e-15)
    assert seen.gradient is not None
    assert_close(std_of(seen.gradient), (2 * after).std(), rtol=1e-12, atol=0.0)
    assert seen.flat is not None
    assert seen.flat[:2].tolist() == [90.0, float((after.abs() > 0.97).sum())]
    assert seen.responded is not None
    assert seen.responded.shape == (6,)


@pytest.mark.filterwarnings("ignore:An output with one or more elements was resized:UserWarning")  # torch's own rule
def test_a_plain_input_whose_output_is_mapped(observe: Observe) -> None:
    """Of a PReLU with stacked weights, the input is what every network shares."""
    torch.manual_seed(2)
    x = torch.randn(5, 4, dtype=torch.float64)
    model = nn.ParameterDict({"slopes": torch.rand(3, 1, dtype=torch.float64)})
    found: list[Tensor] = []

    class Root(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.held = model

        def forward(self, x: Tensor) -> Tensor:
            found.append(torch.vmap(torch.nn.functional.prelu, in_dims=(None, 0))(x, self.held["slopes"]))
            return found[0]

    (seen,) = observe(Root(), x).activations.values()
    assert_close(std_of(seen.input), x.std(), rtol=1e-12, atol=0.0)
    assert_close(std_of(seen.output), found[0].detach().std(), rtol=1e-12, atol=0.0)
    assert seen.gradient is not None
    assert_close(std_of(seen.gradient), (2 * found[0].detach()).std(), rtol=1e-12, atol=0.0)


def test_units_are_channels_behind_the_mapped_dimension(observe: Observe) -> None:
    """After a BatchNorm, whose channels are dimension 1 of what each network sees: 5 examples, 6 units, 3 networks."""

    class Root(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3, 6, dtype=torch.float64))

        def forward(self, x: Tensor) -> Tensor:
            def one(scale: Tensor, x: Tensor) -> Tensor:
                normalized = nn.functional.batch_norm(x * scale, None, None, training=True)
                return torch.tanh(1000 * normalized * (torch.arange(6) > 1))  # two units of six are never flat

            return torch.vmap(one, in_dims=(0, None))(self.scale, x)

    torch.manual_seed(3)
    (seen,) = observe(Root(), torch.randn(5, 6, dtype=torch.float64)).activations.values()
    assert seen.responded is not None
    assert seen.responded.tolist() == [True, True, False, False, False, False]
    assert seen.flat_map is not None
    assert seen.flat_map.shape == (15, 6)


@pytest.mark.parametrize(
    "loss",
    [
        lambda y, classes: F.cross_entropy(y, classes),
        lambda y, classes: F.nll_loss(y.log_softmax(1), classes),
        lambda y, classes: -y.log_softmax(1).gather(1, classes[:, None]).mean(),
        lambda y, classes: F.mse_loss(torch.tanh(y), torch.ones(5, 6).double()),
        lambda y, classes: ((y - 1.0 * classes[:, None]) ** 2).mean(),
        lambda y, classes: F.binary_cross_entropy_with_logits(y, torch.ones(5, 6).double()),
        lambda y, classes: F.cross_entropy(y, torch.eye(6)[:5].double()),
    ],
)
def test_a_loss_of_each_network_has_no_record(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    """There are as many as networks: none of them is the loss of the step, and training goes on."""
    model, x, classes = Stacked(0), torch.randn(5, 4, dtype=torch.float64), torch.arange(5)
    tap = ActivationTap(model, losses=True)
    tap.attach()
    try:
        torch.vmap(lambda w: loss(functional_call(model.inner, w, (x,)), classes))(model.weights()).mean().backward()
    finally:
        tap.detach()
    assert tap.record().losses == []
