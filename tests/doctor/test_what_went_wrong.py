"""Mistakes that are known from facts of the network and its optimizer, and losses that nothing else is known of."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bnlm.doctor import Diagnosis, Facts, Finding, History, Observation, Output, check
from bnlm.doctor.facts import ParameterFacts, facts_of
from bnlm.doctor.loss_rules import SIGN
from bnlm.doctor.refusal import refusal
from bnlm.doctor.weight_decay import LOWER_DECAY

CHANCE = math.log(10)


def found(of: History) -> dict[str, Finding]:
    diagnosis = Diagnosis()
    diagnosis.update(of)
    return {finding.rule: finding for finding in diagnosis.findings}


def run(
    losses: Sequence[float],
    facts: Facts | None = None,
    output: Output | None = None,
    update: float = -2.8,
    share: float = 1.0,
    decays: list[float] | None = None,
    validations: Sequence[float] = (),
) -> History:
    """Return a run of these losses, observed every tenth step, whose hidden weight moves so far."""
    facts = facts or Facts({"w": ParameterFacts("w", (9, 100), "hidden", std=0.1, group=0)})
    statistics = {"update_to_data": {"w": update}, "gradient_std": dict.fromkeys(facts.parameters, 1.0)}
    h = History(facts, len(losses))
    for step, loss in enumerate(losses):
        h.add_losses([loss])
        if step % 10 == 0:
            of_rate = share if step > 20 else 1.0
            h.add(Observation(step, statistics, {}, output, of_rate, decays=decays or []))
        if validations and (step + 1) % (len(losses) // len(validations)) == 0:
            h.validations.append((validations[len(h.validations)], h.recent_loss(50)))
    return h


def classes(loss: float = CHANCE, **more: float) -> Output:
    return Output("cross_entropy", CHANCE, loss, 0.01, 0.3, **more)


def falling(start: float, end: float, steps: int = 300) -> list[float]:
    return [end + (start - end) * (1 - step / steps) for step in range(steps)]


@pytest.mark.parametrize(("first", "leads"), [(-2.8, True), (-0.4, False)])
def test_a_loss_that_goes_the_wrong_way_is_no_matter_of_the_rate(first: float, leads: bool) -> None:
    """The first steps of a rate that is too high are large; of a sign that is wrong they are as usual."""
    facts = Facts({"w": ParameterFacts("w", (9, 100), "hidden", std=0.1)})
    h = History(facts, 300)
    for step in range(200):
        h.add_losses([CHANCE + 0.05 * step])
        if step % 10 == 0:
            update = first if step == 0 else -1.3
            h.add(Observation(step, {"update_to_data": {"w": update}, "gradient_std": {"w": 1.0}}, {}, classes()))
    findings = found(h)
    assert findings["R14"].suggestion.startswith(SIGN) == leads
    assert (findings["R14"].caused_by, findings["R09"].caused_by) == ((None, "R14") if leads else ("R09", None))


@pytest.mark.parametrize(("start", "known"), [(1.5, 1.2), (9.0, 10.0)])
def test_a_regression_that_starts_at_the_mean_of_its_targets_is_held_against_that(start: float, known: float) -> None:
    h = run([start] * 50, output=Output("regression", 10.0, start, 0.1, math.nan, 1.2))
    assert h.reference == pytest.approx(known)


def test_a_start_at_the_mean_that_nothing_comes_of() -> None:
    h = run([1.21, 1.19] * 200, output=Output("regression", 10.0, 1.2, 0.1, math.nan, 1.2))
    assert found(h)["R13"].severity == "critical"


@pytest.mark.parametrize(
    ("train", "validations", "expected"),
    [
        (-2.5, (-0.3, 0.2, 0.5, 0.9, 1.3), True),  # the likelihood of a density goes below zero
        (-2.5, (-0.3, -0.6, -0.8, -0.9, -1.0), False),
        (6.0, (3.0, 4.0, 5.0, 6.0, 7.0), False),  # nothing was learned, so nothing by heart
    ],
)
def test_overfitting_below_zero(train: float, validations: Sequence[float], expected: bool) -> None:
    assert ("R15" in found(run(falling(1.1, train), validations=validations))) == expected


@pytest.mark.parametrize(("p", "end", "expected"), [(0.97, 2.0, True), (0.97, 0.3, False), (0.5, 2.0, False)])
def test_a_dropout_that_leaves_next_to_nothing(p: float, end: float, expected: bool) -> None:
    net = nn.Sequential(nn.Linear(9, 9), nn.Dropout(p), nn.Linear(9, 10))
    findings = found(run(falling(CHANCE, end), facts_of(net), classes()))
    assert (findings.get("R13") is not None and findings["R13"].where == "1") == expected


@pytest.mark.parametrize(("last", "expected"), [(nn.ReLU(), True), (nn.Identity(), False), (nn.LeakyReLU(), False)])
def test_logits_that_a_relu_has_cut(last: nn.Module, expected: bool) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(9, 30), nn.Tanh(), nn.Linear(30, 10), last)
    findings = check(net, (torch.randn(64, 9), torch.randint(10, (64,))), F.cross_entropy, table=False)
    assert ("R13" in [f.rule for f in findings]) == expected


@pytest.mark.parametrize(("eps", "end", "expected"), [(1.0, 1.9, True), (1e-8, 1.9, False), (1.0, 0.3, False)])
def test_an_eps_that_outweighs_gradients(eps: float, end: float, expected: bool) -> None:
    net = nn.Sequential(nn.Linear(9, 9), nn.ReLU(), nn.Linear(9, 10))
    facts = facts_of(net, [torch.optim.Adam(net.parameters(), eps=eps)])
    assert facts.eps == eps
    h = run(falling(CHANCE, end), facts, classes())
    for observation in h.recent:
        observation.statistics["update_to_data"] = {"0.weight": -3.1}
    finding = found(h).get("R10")
    assert (finding is not None and "eps" in finding.suggestion) == expected


@pytest.mark.parametrize(("decay", "expected"), [(0.02, True), (1e-3, False)])
def test_decay_that_outweighs_what_is_learned(decay: float, expected: bool) -> None:
    findings = found(run([CHANCE - 0.001 * (step % 2) for step in range(400)], None, classes(), decays=[decay]))
    finding = findings.get("R09")
    assert (finding is not None and finding.suggestion.startswith(LOWER_DECAY)) == expected
    assert findings["R13"].caused_by == ("R09" if expected else None)


@pytest.mark.parametrize(("weight_decay", "end", "expected"), [(1.0, 1.8, True), (1e-3, 1.8, False), (1.0, 0.1, False)])
def test_decay_that_adam_makes_as_large_as_a_gradient(weight_decay: float, end: float, expected: bool) -> None:
    facts = Facts({"w": ParameterFacts("w", (9, 100), "hidden", std=0.1)}, decay_rescaled=True)
    facts.weight_decay = weight_decay
    findings = found(run(falling(CHANCE, end), facts, classes(), update=-2.0))
    assert ("R09" in findings and "AdamW" in findings["R09"].suggestion) == expected


@pytest.mark.parametrize(("end", "expected"), [(1.2, True), (0.3, False)])
def test_a_schedule_that_ends_at_once_where_no_reference_is_known(end: float, expected: bool) -> None:
    losses = [1.7] * 10 + [end] * 290
    assert ("R10" in found(run(losses, share=1e-6))) == expected


@pytest.mark.parametrize(("end", "expected"), [(1.2, True), (0.2, False)])
def test_an_output_layer_that_learns_alone(end: float, expected: bool) -> None:
    losses = [CHANCE] * 10 + [end + 0.01 * (step % 3) for step in range(290)]
    assert ("R10" in found(run(losses, output=classes(), update=-6.4))) == expected


@pytest.mark.parametrize(
    ("std", "start", "severity"), [(0.5, 60.0, "critical"), (0.5, 20.0, "warning"), (0.5, 8.0, None), (0.1, 60.0, None)]
)
def test_a_loss_of_which_nothing_is_known_that_falls_at_once(std: float, start: float, severity: str | None) -> None:
    facts = Facts({"w": ParameterFacts("w", (9, 100), "hidden", std=std)})
    losses = [start, *falling(start, 4.0, 20), *[4.0] * 80]
    finding = found(run(losses, facts)).get("R01")
    assert (None if finding is None else finding.severity) == severity


def test_weights_that_overflow_at_once() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 1))
    for parameter in net.parameters():
        parameter.data.mul_(1e30)
    findings = check(net, (torch.randn(64, 100), torch.randn(64, 1)), F.mse_loss, table=False)
    assert findings[0].rule == "R05"
    assert {f.rule: f.caused_by for f in findings}["R08"] == "R05"


@pytest.mark.parametrize(("zero", "expected"), [((0, 2), True), ((2,), False), ((), False)])
def test_both_matrices_of_a_residual_branch_are_zero(zero: tuple[int, ...], expected: bool) -> None:
    """One of them alone is how residual branches are started."""
    torch.manual_seed(0)
    branch = nn.Sequential(nn.Linear(9, 9), nn.ReLU(), nn.Linear(9, 9))
    for index in zero:
        nn.init.zeros_(branch[index].weight)
        nn.init.zeros_(branch[index].bias)
    read_in, head = nn.Linear(9, 9), nn.Linear(9, 4)
    parts = nn.ModuleDict({"read_in": read_in, "branch": branch, "head": head})
    optimizer = torch.optim.SGD(parts.parameters(), lr=0.1)
    h = History(facts_of(parts, [optimizer]), 100)
    for step in range(41):
        x = read_in(torch.randn(32, 9))
        loss = F.cross_entropy(head(x + branch(x)), torch.randint(4, (32,)))
        optimizer.zero_grad()
        loss.backward()
        stds = {name: float(p.grad.std()) for name, p in parts.named_parameters() if p.grad is not None}
        optimizer.step()
        h.add_losses([float(loss.detach())])
        if step % 10 == 0:
            h.add(Observation(step, {"gradient_std": stds}, {}, None))
    assert ("R20" in found(h)) == expected


@pytest.mark.parametrize(("validation", "expected"), [(CHANCE, True), (2.2, False)])
def test_what_falls_by_heart_alone_has_not_fallen(validation: float, expected: bool) -> None:
    """Labels that mean nothing: the loss falls by a few percent, and the validation loss does not."""
    losses = falling(CHANCE, 0.96 * CHANCE, 400)
    assert ("R13" in found(run(losses, output=classes(), validations=[validation] * 5))) == expected


@pytest.mark.parametrize(
    ("error", "rule"),
    [
        (
            ValueError("Expected parameter logits to satisfy the constraint, but found invalid values: [[nan, 1.]]"),
            "R08",
        ),
        (RuntimeError("Function 'LogBackward0' returned nan values in its 0th output."), "R08"),
        (ValueError("Expected more than 1 value per channel when training"), "R16"),
        (ValueError("Unknown name: nanny"), None),
        (KeyError("nan"), None),
    ],
)
def test_errors_that_end_a_run(error: Exception, rule: str | None) -> None:
    finding = refusal(error, 3)
    assert (None if finding is None else finding.rule) == rule


@pytest.mark.parametrize(("part", "expected"), [(0.4, False), (2.3, True)])
def test_a_loss_with_other_terms_is_held_against_chance_by_its_part(part: float, expected: bool) -> None:
    """The other term stays at 2: the loss is above chance, whatever is learned of the classes."""
    h = History(Facts(), 500)
    for step in range(500):
        of_classes = part if step > 100 else CHANCE
        h.add_losses([of_classes + 2])
        if step % 10 == 0:
            h.add(Observation(step, {}, {}, classes(of_classes) if h.wants_references else None))
    assert ("R13" in found(h)) == expected
