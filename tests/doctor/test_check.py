"""`check` on one batch: the rules of the start, and a model that is left as it was."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnlm.doctor import check


def batch(n: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, 16, generator=generator), torch.randint(8, (n,), generator=generator)


def network(norm: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for fan_in in (16, 32, 32):
        layers += [nn.Linear(fan_in, 32), *([nn.BatchNorm1d(32)] if norm else []), nn.Tanh()]
        nn.init.kaiming_normal_(layers[-3 if norm else -2].weight, nonlinearity="tanh")
    return nn.Sequential(*layers, nn.Dropout(0.1), nn.Linear(32, 8))


def test_a_healthy_network() -> None:
    assert [f for f in check(network(), batch(), F.cross_entropy, table=False) if f.severity != "note"] == []


def test_nothing_is_changed() -> None:
    model = network(norm=True).eval()
    model[0].weight.grad = torch.ones_like(model[0].weight)
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    check(model, batch(), F.cross_entropy, table=False)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert torch.get_rng_state().equal(random)
    assert not any(module.training for module in model.modules())
    assert model[0].weight.grad.eq(1).all()
    assert model[3].weight.grad is None
    assert not model._forward_hooks
    assert not torch.overrides._get_current_function_mode_stack()


@pytest.mark.parametrize(
    ("rule", "where"),
    [("R02", "output"), ("R03", "1, 3 and 5"), ("R16", "1, 4 and 7"), ("R19", "0, 3 and 6"), ("R20", "2.weight")],
)
def test_what_it_finds(rule: str, where: str) -> None:
    model, data = network(norm=rule in ("R16", "R19")), batch(4 if rule == "R16" else 64)
    with torch.no_grad():
        if rule == "R02":
            model[-1].weight *= 30
        elif rule == "R03":
            for layer in (0, 2, 4):
                model[layer].weight.normal_()
        elif rule == "R20":
            model[2].weight.fill_(0.1)
    found = {finding.rule: finding for finding in check(model, data, F.cross_entropy, table=False)}
    assert found[rule].where == where


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    check(network(norm=True), batch(), F.cross_entropy)
    assert "redundant_bias" in capsys.readouterr().out


@pytest.mark.parametrize(("bias", "severity"), [(-3.0, "critical"), (-2.5, "warning"), (-1.5, None), (0.0, None)])
def test_units_that_respond_to_one_in_a_thousand(bias: float, severity: str | None) -> None:
    """Each has its example in the batch, so none is dead; what fades or blows up is a consequence."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for fan_in in (16, 64, 64):
        layers += [nn.Linear(fan_in, 64, bias=False), nn.BatchNorm1d(64), nn.ReLU()]
        nn.init.constant_(layers[-2].bias, bias)
    findings = check(nn.Sequential(*layers, nn.Linear(64, 8)), batch(4096), F.cross_entropy, table=False)
    assert [f.severity for f in findings if f.rule == "R04"] == [severity] * (severity is not None)
    assert all(f.caused_by == "R04" for f in findings if f.rule in ("R05", "R06") and severity)


def test_inputs_that_are_mostly_zero_are_no_sparse_response() -> None:
    """One pixel in a thousand: what the filters return is zero almost everywhere, and learns."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 8),
    )  # fmt: skip
    data = (torch.rand(64, 1, 32, 32) < 1e-3).float(), torch.randint(8, (64,))
    assert [f for f in check(model, data, F.cross_entropy, table=False) if f.rule == "R04"] == []


@pytest.mark.parametrize(("scale", "expected"), [(1.0, []), (60.0, ["R02", "R01"])])
def test_each_loss_over_classes_is_judged(scale: float, expected: list[str]) -> None:
    class TwoHeads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk, self.value, self.kind = network()[:-1], nn.Linear(32, 1), nn.Linear(32, 8)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.value(self.trunk(x)), self.kind(self.trunk(x))

    model = TwoHeads()
    model.kind.weight.data *= scale
    x, kinds = batch()

    def both(outputs: tuple[torch.Tensor, torch.Tensor], targets: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(outputs[0], x[:, :1]) + F.cross_entropy(outputs[1], targets)

    found = [f for f in check(model, (x, kinds), both, table=False) if f.severity != "note"]
    assert [f.rule for f in found if f.rule in ("R01", "R02")] == expected
    assert all(f.where == "output of loss 2 (cross_entropy)" for f in found if f.rule in ("R01", "R02"))


class Margins(nn.Module):
    """Hinges on the scores of classes, which all are met where the weights ask for it."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.features, self.score = nn.Linear(9, 30), nn.Linear(30, 10)
        nn.init.constant_(self.score.bias, weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.score(F.relu(self.features(x)))


@pytest.mark.parametrize("through", [F.relu, nn.ReLU()])
def test_a_hinge_that_is_met_is_no_dead_layer(through: Callable[[Tensor], Tensor]) -> None:
    def loss(scores: Tensor, target: Tensor) -> Tensor:
        return through(1 - scores).mean() + scores.square().mean() / 1000

    torch.manual_seed(0)
    net = Margins(9.0)
    if isinstance(through, nn.Module):  # a layer of the network's own
        net.through = through
    findings = check(net, (torch.randn(64, 9), torch.zeros(64)), loss, table=False)
    assert ("R04" in [f.rule for f in findings]) == isinstance(through, nn.Module)


def test_probabilities_for_logits() -> None:
    model = nn.Sequential(network(), nn.Softmax(dim=1))
    found = {f.rule: f for f in check(model, batch(), F.cross_entropy, table=False)}
    assert found["R13"].severity == "critical"
    assert "remove the softmax" in found["R13"].suggestion


@pytest.mark.parametrize("gates", [False, True])
def test_a_gradient_that_fades_through_sigmoids_is_remarked_on(gates: bool) -> None:
    """As it does by torch's own init, and learns; beside a tanh they are gates."""
    torch.manual_seed(0)
    kinds = [nn.Sigmoid] * 4 + [nn.Tanh] * gates
    layers = [nn.Sequential(nn.Linear(16, 16), kind()) for kind in kinds]
    found = check(nn.Sequential(*layers, nn.Linear(16, 8)), batch(), F.cross_entropy, table=False)
    assert [f.severity for f in found if f.rule == "R06"] == ([] if gates else ["note"])


@pytest.mark.filterwarnings("ignore:Using a target size")
def test_targets_of_another_shape_meet_all_outputs() -> None:
    (x, _), model = batch(), nn.Sequential(*network()[:-1], nn.Linear(32, 1))
    found = {f.rule: f for f in check(model, (x, x[:, 0]), F.mse_loss, table=False)}
    assert found["R13"].suggestion.startswith("Give outputs and targets the same shape")
    fitting = check(model, (x, x[:, :1]), F.mse_loss, table=False)
    assert "R13" not in {f.rule for f in fitting}


@pytest.mark.filterwarnings("ignore:Using a target size")
def test_several_outputs_for_one_target_are_meant() -> None:
    x, _ = batch()
    assert "R13" not in {f.rule for f in check(network(), (x, x[:, :1]), F.mse_loss, table=False)}


def test_binary_targets_of_minus_one() -> None:
    (x, y), model = batch(), nn.Sequential(*network()[:-1], nn.Linear(32, 1))
    targets = (y[:, None] % 2).float()
    found = {f.rule: f for f in check(model, (x, 2 * targets - 1), F.binary_cross_entropy_with_logits, table=False)}
    assert "(target + 1) / 2" in found["R13"].suggestion
    with_some_left_out = torch.where(torch.arange(len(x))[:, None] < 5, -1.0, targets)
    for right in (targets, with_some_left_out):
        findings = check(model, (x, right), F.binary_cross_entropy_with_logits, table=False)
        assert "R13" not in {f.rule for f in findings}


def test_nothing_that_is_to_be_trained() -> None:
    found = check(network().requires_grad_(False), batch(), F.cross_entropy, table=False)
    assert [(f.rule, f.severity) for f in found] == [("R12", "critical")]


def test_a_batch_that_batch_norm_refuses() -> None:
    model = network(norm=True).eval()
    found = check(model, batch(1), F.cross_entropy, table=False)
    assert [(f.rule, f.severity) for f in found] == [("R16", "critical")]
    assert not any(module.training for module in model.modules())
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        check(model, (torch.randn(4, 3), torch.zeros(4, dtype=torch.long)), F.cross_entropy, table=False)


@pytest.mark.parametrize("dim", [0, 1])
def test_a_softmax_over_the_wrong_dimension(dim: int) -> None:
    def loss(logits: Tensor, y: Tensor) -> Tensor:
        sequences = logits.reshape(8, 8, 8) if dim == 1 else logits  # (sequences, places, classes)
        return F.cross_entropy(sequences.softmax(dim).reshape(-1, 8), y)

    found = {f.rule: f for f in check(network(), batch(), loss, table=False)}
    assert found["R13"].suggestion.startswith("Remove the softmax before the loss")


def test_outputs_that_are_all_the_same_are_no_softmax() -> None:
    found = check(network(), batch(), lambda logits, y: F.cross_entropy(0 * logits + 0.5, y), table=False)
    assert "R13" not in {f.rule for f in found}


def test_a_network_called_twice_is_no_recurrent_one() -> None:
    torch.manual_seed(0)
    layers = [layer for _ in range(10) for layer in (nn.Linear(16, 16), nn.ReLU())]
    model = nn.Sequential(*layers, nn.Linear(16, 8))

    def both(_: Tensor, y: Tensor) -> Tensor:
        x, _ = batch()
        return F.cross_entropy(model(x) - model(x.roll(1, 0)), y)

    found = {f.rule: f for f in check(nn.Sequential(model), batch(), both, table=False)}
    assert "orthogonal_" not in found["R06"].suggestion
