"""R12 of a parameter group whose learning rate is zero."""

import math

import pytest
import torch
from torch import nn

from bnlm.doctor import Diagnosis, Finding, History, Observation
from bnlm.doctor.facts import facts_of


def observed(rates: tuple[float, float], moved: float) -> dict[str, Finding]:
    """Return what is found where the first of two layers moves so far, log10, and each has a rate."""
    model = nn.Sequential(nn.Linear(80, 80), nn.Linear(80, 80), nn.Linear(80, 8))
    groups = [{"params": model[0].parameters(), "lr": rates[0]}, {"params": model[1:].parameters(), "lr": rates[1]}]
    h = History(facts_of(model, [torch.optim.SGD(groups)]), 1000)
    for step in range(0, 150, 10):
        h.losses.add([2.3] * 10)
        updates = {name: moved if name.startswith("0.") else -2.5 for name, _ in model.named_parameters()}
        h.add(Observation(step, {"gradient_std": dict.fromkeys(updates, 1.0), "update_to_data": updates}, {}))
    diagnosis = Diagnosis()
    diagnosis.update(h)
    return {finding.rule: finding for finding in diagnosis.findings}


@pytest.mark.parametrize(
    ("rates", "moved", "rule"),
    [
        ((0.0, 0.1), -math.inf, "R12"),
        ((0.0, 0.1), -2.5, None),  # a schedule has raised it since
        ((0.0, 0.0), -math.inf, "R11"),  # nobody can tell, of an optimizer that finds its rates itself
        ((0.1, 0.1), -math.inf, "R11"),
    ],
)
def test_a_group_whose_rate_is_zero(rates: tuple[float, float], moved: float, rule: str | None) -> None:
    findings = observed(rates, moved)
    assert findings.keys() & {"R11", "R12"} == ({rule} if rule else set())
    if rule == "R12":
        assert findings["R12"].where == "0.weight and 0.bias"
        assert "learning rate of their group is 0" in findings["R12"].message
