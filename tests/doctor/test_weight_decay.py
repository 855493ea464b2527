"""Weight decay: how far it moves a weight by itself, and R10 where it alone does."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from bnlm.doctor import Diagnosis, Facts, History, Observation, Output, decays_of, facts_of
from bnlm.doctor.facts import ParameterFacts


@pytest.mark.parametrize(
    ("kind", "options", "known"),
    [
        (torch.optim.SGD, {}, True),
        (torch.optim.SGD, {"momentum": 0.9}, True),
        (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}, True),
        (torch.optim.AdamW, {}, True),
        (torch.optim.Adam, {}, False),
        (torch.optim.RMSprop, {}, False),
    ],
)
def test_against_steps_without_a_gradient(kind: Any, options: dict[str, Any], known: bool) -> None:
    """Within 1 %: of SGD weights shrink a little while momentum adds up what decay takes."""
    weight = nn.Parameter(torch.randn(50, 50, dtype=torch.float64))
    optimizer = kind([weight], lr=0.01, weight_decay=0.01, **options)
    for _ in range(200):
        before = weight.detach().clone()
        weight.grad = torch.zeros_like(weight)
        optimizer.step()
    moved = float(((weight - before).std() / before.std()).detach())
    assert decays_of([optimizer]) == [pytest.approx(moved, rel=0.01) if known else 0.0]


def test_groups_are_counted_through_all_optimizers() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    first = torch.optim.SGD(
        [{"params": [model[0].weight], "weight_decay": 0.1}, {"params": [model[0].bias], "weight_decay": 0.0}], lr=0.5
    )
    second = torch.optim.AdamW(model[1].parameters(), lr=0.1, weight_decay=0.3)
    facts = facts_of(model, [first, second])
    assert [facts.parameters[name].group for name, _ in model.named_parameters()] == [0, 1, 2, 2]
    assert decays_of([first, second]) == pytest.approx([0.05, 0.0, 0.03])
    assert facts_of(model).parameters["0.weight"].group is None


@pytest.mark.parametrize(
    ("update", "decay", "severity"),
    [
        (-3.6, 10**-3.6, "warning"),  # nothing but decay
        (-3.6, 0.0, None),
        (-3.0, 10**-3.6, None),
        (-5.5, 10**-7, "critical"),
        (-math.inf, 10**-3.6, "critical"),  # not even that: no step is taken
    ],
)
def test_what_decay_alone_moves_is_not_learned(update: float, decay: float, severity: str | None) -> None:
    h, diagnosis = History(Facts({"w": ParameterFacts("w", (9, 8), "hidden", std=0.3, group=1)}), 1000), Diagnosis()
    for step in range(0, 200, 10):
        h.losses.add([2.3] * 10)
        output = Output("cross_entropy", 2.3, 2.3, 0.1, 0.1)
        decays = [0.0] if step == 10 else [0.0, decay]  # a group may be added later
        h.add(Observation(step, {"update_to_data": {"w": update}}, {}, output, decays=decays))
        diagnosis.update(h)
    findings = {finding.rule: finding for finding in diagnosis.findings}
    assert (findings["R10"].severity if "R10" in findings else None) == severity


@pytest.mark.parametrize(("decay", "named"), [(10**-0.9, True), (10**-2.0, False), (0.0, False)])
@pytest.mark.parametrize("later", [-0.7, -2.5])
def test_large_updates_that_are_decay(decay: float, named: bool, later: float) -> None:
    h, diagnosis = History(Facts({"w": ParameterFacts("w", (9, 8), "hidden", std=0.3, group=0)}), 1000), Diagnosis()
    for step in range(0, 300, 10):
        h.losses.add([2.3] * 10)
        statistics = {"update_to_data": {"w": later if step else -0.7 if later == -0.7 else -0.2}}
        h.add(Observation(step, statistics, {}, Output("cross_entropy", 2.3, 2.3, 0.1, 0.1), decays=[decay]))
        diagnosis.update(h)
    found = next(finding for finding in diagnosis.findings if finding.rule == "R09")
    assert ("weight_decay" in found.suggestion) == (named and later == -0.7)
    assert ("Weight decay alone takes 10^-0.9" in found.message) == (named and later == -0.7)


@pytest.mark.parametrize(
    ("kind", "decay", "named"),
    [
        (torch.optim.SGD, 0.1, True),
        (torch.optim.SGD, 1e-3, False),
        (torch.optim.AdamW, 1.0, True),
        (torch.optim.AdamW, 0.01, False),
        (torch.optim.Adam, 1.0, True),  # how much it takes is not known
        (torch.optim.Adam, 1e-3, False),
    ],
)
def test_a_heavy_decay_is_named_where_the_loss_stands_still(kind: Any, decay: float, named: bool) -> None:
    model = nn.Linear(8, 9)
    optimizer = kind(model.parameters(), lr=0.03, weight_decay=decay)
    h, diagnosis = History(facts_of(model, [optimizer]), 500), Diagnosis()
    for step in range(0, 500, 10):
        h.losses.add([2.3] * 10)
        output = Output("cross_entropy", 2.3, 2.3, 0.1, 0.1)
        h.add(Observation(step, {}, {}, output, decays=decays_of([optimizer])))
        diagnosis.update(h)
    found = next(finding for finding in diagnosis.findings if finding.rule == "R13")
    assert found.suggestion.startswith("Lower optimizer.weight_decay") == named


@pytest.mark.parametrize(("lr", "decay", "expected"), [(1e-3, 10.0, True), (5e-3, 1.0, False)])
def test_a_decay_that_takes_a_hundredth_of_the_weights_in_a_step(lr: float, decay: float, expected: bool) -> None:
    model = nn.Linear(8, 8)
    optimizer = torch.optim.AdamW(nn.Sequential(model, nn.Linear(8, 8)).parameters(), lr=lr, weight_decay=decay)
    h = History(facts_of(nn.Sequential(model, nn.Linear(8, 8)), [optimizer]), 1000)
    for step in range(0, 300, 10):
        h.losses.add([2.0 - 0.002 * (step + i) for i in range(10)])
        h.add(Observation(step, {"update_to_data": {"0.weight": -2.4}}, {}, decays=decays_of([optimizer])))
    diagnosis = Diagnosis()
    diagnosis.update(h)
    assert any("weight decay takes" in finding.message for finding in diagnosis.findings) == expected
