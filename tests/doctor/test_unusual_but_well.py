"""Networks that are unusual and train well: nothing is to be held against them, and what is like them is."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnlm.doctor import Diagnosis, Facts, Finding, History, Observation, Output, check, facts_of
from bnlm.doctor.facts import ParameterFacts

CHANCE = math.log(10)


def found(of: History) -> dict[str, Finding]:
    diagnosis = Diagnosis()
    diagnosis.update(of)
    return {finding.rule: finding for finding in diagnosis.findings}


class Residual(nn.Module):
    """Blocks whose last layer starts at zero, as in Fixup (Zhang et al. 2019, arXiv 1901.09321)."""

    def __init__(self, output: float) -> None:
        super().__init__()
        self.first = nn.Linear(9, 30)
        self.inner = nn.ModuleList(nn.Linear(30, 30) for _ in range(3))
        self.last = nn.ModuleList(nn.Linear(30, 30) for _ in range(3))
        self.output = nn.Linear(30, 10)
        with torch.no_grad():
            self.output.weight *= output
            for layer in self.last:
                layer.weight.zero_()
                layer.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        for inner, last in zip(self.inner, self.last, strict=True):
            x = x + last(inner(x).relu())
        return self.output(x)


@pytest.mark.parametrize("output", [0.0, 1.0])
def test_blocks_and_an_output_that_start_at_zero(output: float) -> None:
    torch.manual_seed(0)
    data = torch.randn(64, 9), torch.randint(10, (64,))
    assert "R20" not in [f.rule for f in check(Residual(output), data, F.cross_entropy, table=False)]


def test_a_network_of_zeros() -> None:
    net = nn.Sequential(nn.Linear(9, 30), nn.ReLU(), nn.Linear(30, 30), nn.ReLU(), nn.Linear(30, 10))
    for parameter in net.parameters():
        nn.init.zeros_(parameter)
    data = torch.randn(64, 9), torch.randint(10, (64,))
    assert "R20" in [f.rule for f in check(net, data, F.cross_entropy, table=False)]


class Coupling(nn.Module):
    """A flow each of whose scales and shifts start at none (Dinh et al. 2017, arXiv 1605.08803)."""

    def __init__(self) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 4)) for _ in range(4))
        for net in self.nets:
            nn.init.zeros_(net[2].weight)
            nn.init.zeros_(net[2].bias)

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, dim=1)
        total = torch.zeros(len(x))
        for net in self.nets:
            scale, shift = net(left).chunk(2, dim=1)
            scale = torch.tanh(scale)
            left, right, total = right * scale.exp() + shift, left, total + scale.sum(1)
        return (left.square() + right.square()).sum(1) / 2 - total


def test_couplings_that_start_at_nothing() -> None:
    torch.manual_seed(0)
    data = torch.randn(64, 4), torch.zeros(64)
    assert check(Coupling(), data, lambda output, _: output.mean(), table=False) == []


def moving(fast: float, slow: float, end: float, rates: tuple[float, float, float] = (1e-3, 1e-3, 1e-3)) -> History:
    """Return a run of weights that move so far in a step, log10, and whose loss ends there."""
    moves = {"slow": slow, "fast": fast, "output": -2.5}
    facts = {
        name: ParameterFacts(name, (9, 8), "output" if name == "output" else "hidden", std=0.3, group=0, lr=lr)
        for name, lr in zip(moves, rates, strict=True)
    }
    statistics = {"update_to_data": moves, "gradient_std": dict.fromkeys(moves, 1.0)}
    h = History(Facts(facts), 1000)
    for step in range(0, 400, 10):
        h.losses.add([end + (CHANCE - end) * max(0.0, 1 - step / 300)] * 10)
        h.add(Observation(step, statistics, {}, Output("cross_entropy", CHANCE, CHANCE, 0.05, 0.2)))
    return h


@pytest.mark.parametrize(
    ("slow", "end", "rates", "severity"),
    [
        (-4.3, 1.0, (1e-3, 1e-3, 1e-3), "warning"),
        (-4.3, 1.0, (1e-5, 1e-4, 1e-3), None),  # the first layers of what is fine-tuned have rates of their own
        (-6.0, 1.0, (1e-6, 1e-4, 1e-3), "warning"),  # yet not as different as that
        (-4.5, 1.0, (1e-5, 1e-3, 1e-3), "warning"),  # one alone
        (-4.3, 0.01, (1e-3, 1e-3, 1e-3), "note"),
    ],
)
def test_layers_at_different_speeds(
    slow: float, end: float, rates: tuple[float, float, float], severity: str | None
) -> None:
    finding = found(moving(-2.5, slow, end, rates)).get("R11")
    assert (finding and finding.severity) == severity


def test_the_rate_of_each_parameter() -> None:
    net = nn.Sequential(nn.Linear(9, 9), nn.Linear(9, 9))
    optimizer = torch.optim.AdamW([{"params": net[0].parameters(), "lr": 1e-5}, {"params": net[1].parameters()}], 1e-3)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.0)  # a warm-up, which starts at nothing
    facts = facts_of(net, [optimizer]).parameters
    assert (facts["0.weight"].lr, facts["1.weight"].lr) == (1e-5, 1e-3)


@pytest.mark.parametrize(("end", "severity"), [(1.0, "critical"), (0.2, None)])
def test_large_updates_that_do_no_harm(end: float, severity: str | None) -> None:
    finding = found(moving(-0.9, -0.9, end)).get("R09")
    assert (finding and finding.severity) == severity


def test_large_updates_that_did_no_harm() -> None:
    h, diagnosis = moving(-0.9, -0.9, 1.0), Diagnosis()
    diagnosis.update(h)
    h.losses.add([0.01] * 100)
    diagnosis.update(h)
    assert [f.severity for f in diagnosis.findings if f.rule == "R09"] == ["note"]


@pytest.mark.parametrize(("turns", "expected"), [({"w"}, False), (set(), True)])
def test_what_has_a_gradient_between_the_observed_steps(turns: set[str], expected: bool) -> None:
    h = History(Facts({name: ParameterFacts(name, (9, 8), "hidden", std=0.3) for name in ("v", "w")}), 1000)
    for step in range(0, 400, 10):
        h.losses.add([CHANCE - 0.001 * step] * 10)
        if step:
            h.take_turns(turns)
        updates = {"v": -3.0, "w": -math.inf}
        h.add(Observation(step, {"gradient_std": {"v": 1.0, "w": 0.0}, "update_to_data": updates}, {}))
    findings = found(h)
    assert ("R12" in findings) == expected
    assert "R11" not in findings


@pytest.mark.parametrize(("error", "expected"), [(2.3, False), (0.1, True)])
def test_a_loss_of_single_examples_goes_up_and_down(error: float, expected: bool) -> None:
    h = History(Facts(), 2000)
    for step in range(200):
        h.losses.add([CHANCE if step < 20 else 0.3 if step < 120 else 1.3])
        if step % 10 == 0:
            h.add(Observation(step, {}, {}, Output("cross_entropy", CHANCE, CHANCE, error, 0.2)))
    assert ("R14" in found(h)) == expected


@pytest.mark.parametrize(("focal", "expected"), [(True, False), (False, True)])
def test_a_loss_that_only_began_as_a_multiple_is_held_against_nothing(focal: bool, expected: bool) -> None:
    """A focal loss, over the number of rare examples: a batch that has none says nothing of the others."""
    h = History(Facts(), 400)
    for step in range(400):
        h.losses.add([0.0001 if step == 0 else 1 - 0.002 * step] if focal else [0.01])
        if step % 10 == 0:
            h.add(
                Observation(step, {}, {}, Output("binary_cross_entropy", math.log(2), 0.0088 if focal else 0.7, 0, 0))
            )
    assert h.reference.is_known == expected
    assert ("R13" in found(h)) == expected


@pytest.mark.parametrize(("frozen", "spread", "severity"), [(True, 2.0, "note"), (True, 4.0, "critical")])
def test_a_new_output_on_features_that_were_learned(frozen: bool, spread: float, severity: str) -> None:
    output = ParameterFacts("head.weight", (10, 64), "output", std=0.1)
    h = History(Facts({"head.weight": output}, frozen=frozen))
    h.losses.add([9.0])
    h.add(Observation(0, {}, {}, Output("cross_entropy", CHANCE, 9.0, 0.2, spread)))
    findings = found(h)
    assert (findings["R01"].severity, findings["R02"].severity) == (severity, severity)


@pytest.mark.parametrize(("zero", "severity"), [(True, "note"), (False, "critical")])
def test_an_adapter_beside_an_output_that_was_trained(zero: bool, severity: str) -> None:
    """The output is not to blame for what it has learned elsewhere (Hu et al. 2021, arXiv 2106.09685)."""
    facts = {"b": ParameterFacts("b", (10, 4), "output", std=0.0 if zero else 1.0, zero=zero)}
    h = History(Facts(facts, frozen=True))
    h.losses.add([11.0])
    h.add(Observation(0, {}, {}, Output("cross_entropy", CHANCE, 11.0, 0.2, 5.0)))
    assert found(h)["R02"].severity == severity


class Votes(nn.Module):
    """A weight of five dimensions, of which only its author knows which are summed over."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Linear(9, 30)
        self.votes = nn.Parameter(0.1 * torch.randn(1, 10, 6, 4, 5))


def test_the_inputs_of_a_weight_of_ones_own_are_not_known() -> None:
    facts = facts_of(Votes()).parameters
    assert (facts["votes"].fan_in, facts["features.weight"].fan_in) == (0, 9)
    assert facts_of(nn.Sequential(nn.Conv2d(3, 8, 5))).parameters["0.weight"].fan_in == 75
    assert facts_of(nn.LSTM(9, 30)).parameters["weight_hh_l0"].fan_in == 30


class Gaussian(nn.Module):
    """Weights that are drawn anew in each step (Blundell et al. 2015, arXiv 1505.05424)."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.randn(30, 9) / 3)
        self.rho = nn.Parameter(torch.full((30, 9), -3.0))
        self.output = nn.Linear(30, 10)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.mean + F.softplus(self.rho) * torch.randn(30, 9)
        return self.output(torch.tanh(x @ weight.T))


def test_a_constant_scale_beside_a_mean_is_not_alike() -> None:
    torch.manual_seed(0)
    data = torch.randn(64, 9), torch.randint(10, (64,))
    assert check(Gaussian(), data, F.cross_entropy, table=False) == []


@pytest.mark.parametrize(("looks", "loss", "expected"), [(10, 0.6, True), (5, 0.6, False), (10, 0.2, False)])
def test_logits_that_begin_between_0_and_1(looks: int, loss: float, expected: bool) -> None:
    h = History(Facts(), 1000)
    for step in range(0, 10 * looks, 10):
        h.losses.add([0.7 if step < 20 else loss] * 10)
        output = Output("binary_cross_entropy", math.log(2), 0.7, 0.01, math.nan, floor=0.48)
        h.add(Observation(step, {}, {"gate": "sigmoid"}, output))
    assert ("R13" in found(h)) == expected


@pytest.mark.parametrize(
    ("loss", "reference", "constant", "severity"),
    [
        (13.6, 200.0, 13.8, None),  # the output's bias is the targets' mean
        (190.0, 200.0, 8.0, "warning"),
        (0.109, 0.0123, 0.012, "note"),  # maps of single points
        (1.09, 0.123, 0.12, "critical"),
    ],
)
def test_where_a_regression_starts(loss: float, reference: float, constant: float, severity: str | None) -> None:
    h = History(Facts(), 1000)
    h.losses.add([loss])
    h.add(Observation(0, {}, {}, Output("regression", reference, loss, loss / 100, math.nan, constant)))
    finding = found(h).get("R01")
    assert (finding and finding.severity) == severity


@pytest.mark.parametrize(("counts", "severity"), [([970.0, 30.0], "note"), ([500.0, 500.0], "warning")])
def test_what_almost_all_targets_are_costs_the_same_for_all(counts: list[float], severity: str) -> None:
    h = History(Facts(), 1000)
    h.losses.add([1.1])
    h.add(Observation(0, {}, {}, Output("cross_entropy", math.log(2), 1.1, 0.01, 0.4, counts=counts)))
    assert found(h)["R01"].severity == severity


@pytest.mark.parametrize(("last", "severity"), [("tanh", "note"), ("sigmoid", "warning")])
def test_gates_may_start_open(last: str, severity: str) -> None:
    h = History(Facts(), 1000)
    kinds = {"gate": "sigmoid", "other": "tanh"} if last == "tanh" else {"other": "tanh", "gate": "sigmoid"}
    h.add(Observation(0, {"saturation": {"gate": 0.75, "other": 0.1}}, kinds))
    assert found(h)["R03"].severity == severity


def test_a_curriculum_makes_the_loss_rise_and_fall_again() -> None:
    h, diagnosis = History(Facts(), 2000), Diagnosis()
    for start, loss in ((0, CHANCE), (100, 0.02), (200, 3.0), (300, 0.01)):
        for step in range(start, start + 100, 10):
            h.losses.add([loss] * 10)
            h.add(Observation(step, {}, {}, Output("cross_entropy", CHANCE, CHANCE, 0.01, 0.2)))
            diagnosis.update(h)
        if start == 200:
            assert [f.severity for f in diagnosis.findings if f.rule == "R14"] == ["critical"]
    assert [f.severity for f in diagnosis.findings if f.rule == "R14"] == ["note"]
