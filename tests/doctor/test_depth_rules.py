"""R05 beside how the weights were drawn, and the limits that R06 names."""

import pytest

from bnlm.doctor import Diagnosis, Facts, Finding, History, Observation
from bnlm.doctor.facts import ParameterFacts


def found(fresh: bool, stds: list[float], gradients: list[float]) -> dict[str, Finding]:
    """Return what is found of three layers with these statistics in the first step."""
    layers = ["a", "b", "c"]
    weights = {n: ParameterFacts(n, (64, 64), "hidden", std=0.07, fresh=fresh) for n in layers}
    h = History(Facts(weights), 1000)
    h.losses.add([2.3])
    statistics = {
        "activation_std": dict(zip(layers, stds, strict=True)),
        "activation_gradient_std": dict(zip(layers, gradients, strict=True)),
    }
    h.add(Observation(0, statistics, dict.fromkeys(layers, "leaky_relu")))
    diagnosis = Diagnosis()
    diagnosis.update(h)
    return {finding.rule: finding for finding in diagnosis.findings}


@pytest.mark.parametrize(
    ("fresh", "last", "severity"),
    [(True, 0.098, "note"), (True, 0.04, "warning"), (False, 0.098, "warning"), (False, 0.11, None)],
)
def test_what_fades_by_the_init_of_torch_is_given_more_room(fresh: bool, last: float, severity: str | None) -> None:
    finding = found(fresh, [1.0, 0.4, last], [1.0, 1.0, 1.0]).get("R05")
    assert (finding and finding.severity) == severity


@pytest.mark.parametrize(("first", "severity", "limit"), [(0.05, "note", 0.1), (0.001, "critical", 0.01)])
def test_the_limit_that_is_named_is_the_one_that_was_passed(first: float, severity: str, limit: float) -> None:
    finding = found(True, [1.0, 1.0, 1.0], [first, first**0.5, 1.0])["R06"]
    assert (finding.severity, finding.threshold) == (severity, limit)
