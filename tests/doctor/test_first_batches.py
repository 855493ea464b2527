"""R01 and R02: what the batches after the first add to what it says of the start."""

from __future__ import annotations

import math

import pytest

from bnlm.doctor import Diagnosis, Facts, Finding, History, Observation, Output
from bnlm.doctor.facts import ParameterFacts


def found(
    kind: str, losses: list[float], error: float, frozen: bool = False, logit_std: float = 2.0
) -> dict[str, Finding]:
    """Return what is found of a run with these first losses, judged as it goes on."""
    reference = {"cross_entropy": math.log(10), "binary_cross_entropy": math.log(2)}[kind]
    spread = logit_std if kind == "cross_entropy" else math.nan
    h, diagnosis = History(Facts(frozen=frozen), 1000), Diagnosis()
    output = Output(kind, reference, losses[0], error, spread)
    for step in range(0, 60, 10):
        h.losses.add(losses if step == 0 else [losses[-1]] * 10)
        h.add(Observation(step, {}, {}, output if step == 0 else None))
        diagnosis.update(h)
    return {finding.rule: finding for finding in diagnosis.findings}


@pytest.mark.parametrize(
    ("losses", "severity"),
    [
        ([1.4, 1.4, 1.4, 1.4], "note"),
        ([1.7, 1.6, 1.7, 1.6], "warning"),
        ([2.3, 2.3, 2.2, 2.3], "critical"),
        ([1.4, 0.8, 0.9, 0.9], None),  # one batch was worse than the others
        ([1.0, 5.0, 9.0, 9.0], None),  # the first steps have made it worse
        ([0.7, 0.3, 0.2, 0.1], None),  # the first steps have made it much better: not trained before
    ],
)
def test_four_batches_tell_more_than_one(losses: list[float], severity: str | None) -> None:
    """The first alone is within three standard errors of what is granted, or of the next severity."""
    finding = found("binary_cross_entropy", losses, 0.25).get("R01")
    assert (finding and finding.severity) == severity
    assert finding is None or finding.step == 0


def test_a_network_that_is_fine_tuned_is_judged_by_its_first_batch() -> None:
    assert "R02" in found("cross_entropy", [4.0, 4.0, 4.0, 4.0], 1.2)
    assert "R02" not in found("cross_entropy", [4.0, 4.0, 4.0, 4.0], 1.2, frozen=True)


@pytest.mark.parametrize(("loss", "severity"), [(2.95, "note"), (3.7, "warning")])
def test_logits_that_do_not_seem_large(loss: float, severity: str) -> None:
    """An output layer of gain 1 costs up to a third more than chance; half as much again is too much for any."""
    assert found("cross_entropy", [loss] * 4, 0.02, logit_std=1.4)["R01"].severity == severity


def test_an_infinite_loss_is_no_matter_of_the_output_layer() -> None:
    h = History(Facts(), 1000)
    h.losses.add([math.inf])
    h.add(Observation(0, {}, {}, Output("regression", 1.0, math.inf, math.nan, math.nan, 1.0)))
    diagnosis = Diagnosis()
    diagnosis.update(h)
    assert [finding.rule for finding in diagnosis.findings] == ["R08"]


@pytest.mark.parametrize(("mean", "expected"), [(4.0, ["warning"]), (3.4, ["note"]), (2.0, [])])
def test_targets_that_are_far_from_zero(mean: float, expected: list[str]) -> None:
    h = History(Facts(), 1000)
    reference = 1 + mean**2
    h.losses.add([reference])
    h.add(Observation(0, {}, {}, Output("regression", reference, reference, 0.5, math.nan, 1.0)))
    diagnosis = Diagnosis()
    diagnosis.update(h)
    assert [finding.severity for finding in diagnosis.findings if finding.rule == "R01"] == expected


@pytest.mark.parametrize(("spread", "severity"), [(2.2, "warning"), (0.5, None)])
def test_large_binary_logits(spread: float, severity: str | None) -> None:
    """What large ones cost is less certain, and more likely."""
    h = History(Facts(), 1000)
    h.losses.add([1.0])
    h.add(Observation(0, {}, {}, Output("binary_cross_entropy", math.log(2), 1.0, 0.1, spread)))
    diagnosis = Diagnosis()
    diagnosis.update(h)
    assert {f.rule: f.severity for f in diagnosis.findings} == (
        {} if severity is None else {"R01": severity, "R02": severity}
    )


@pytest.mark.parametrize(
    ("scale", "loss", "spread", "rules"),
    [
        (3.0, 2.9, 1.4, {"R01": "warning", "R02": "warning"}),
        (3.0, 2.9, 0.8, {"R01": "warning"}),
        (1.4, 2.9, 1.4, {"R01": "note", "R02": "note"}),  # Kaiming's or Glorot's init
        (3.0, 2.4, 1.4, {}),  # it costs nothing
    ],
)
def test_an_output_layer_that_no_usual_init_draws(
    scale: float, loss: float, spread: float, rules: dict[str, str]
) -> None:
    head = ParameterFacts("head.weight", (10, 64), "output", std=scale / 8)
    h, diagnosis = History(Facts({"head.weight": head}), 1000), Diagnosis()
    h.losses.add([loss] * 4)
    h.add(Observation(0, {}, {}, Output("cross_entropy", math.log(10), loss, 0.02, spread)))
    diagnosis.update(h)
    assert {f.rule: f.severity for f in diagnosis.findings if f.rule in ("R01", "R02")} == rules


@pytest.mark.parametrize(("scale", "severity"), [(3.0, "warning"), (1.0, "note")])
def test_an_output_layer_of_a_regression(scale: float, severity: str) -> None:
    head = ParameterFacts("head.weight", (1, 64), "output", std=scale / 8)
    h, diagnosis = History(Facts({"head.weight": head}), 1000), Diagnosis()
    h.losses.add([2.4] * 4)
    h.add(Observation(0, {}, {}, Output("regression", 1.0, 2.4, 0.1, math.nan, 1.0)))
    diagnosis.update(h)
    assert [f.severity for f in diagnosis.findings if f.rule == "R01"] == [severity]


@pytest.mark.parametrize(
    ("bias", "severity"),
    [(0.0, "warning"), (0.072, "warning"), (0.375, "warning"), (math.nan, "warning"), (0.2, "note")],
)
def test_an_output_layer_that_was_trained_is_as_large_as_it_was_learned(bias: float, severity: str) -> None:
    """Its bias tells: it is not zero, as torch draws it, scaled as the weight is, or a single number."""
    facts = {
        "head.weight": ParameterFacts("head.weight", (10, 64), "output", std=3.0 / 8),
        "head.bias": ParameterFacts("head.bias", (10,), "vector", std=bias),
    }
    h, diagnosis = History(Facts(facts), 1000), Diagnosis()
    h.losses.add([2.9] * 4)
    h.add(Observation(0, {}, {}, Output("cross_entropy", math.log(10), 2.9, 0.02, 1.4)))
    diagnosis.update(h)
    assert {f.severity for f in diagnosis.findings if f.rule in ("R01", "R02")} == {severity}


@pytest.mark.parametrize(("scale", "told"), [(3.0, True), (1.4, False)])
def test_a_batch_need_not_be_sure_where_the_weights_tell(scale: float, told: bool) -> None:
    head = ParameterFacts("head.weight", (10, 64), "output", std=scale / 8)
    h, diagnosis = History(Facts({"head.weight": head}), 1000), Diagnosis()
    h.losses.add([2.7])
    h.add(Observation(0, {}, {}, Output("cross_entropy", math.log(10), 2.7, 0.2, 0.9)))
    diagnosis.update(h)
    assert ("R01" in {f.rule for f in diagnosis.findings}) == told


@pytest.mark.parametrize(("fresh", "severity"), [(True, "note"), (False, "critical")])
def test_a_new_output_layer_on_features_that_are_kept(fresh: bool, severity: str) -> None:
    head = ParameterFacts("head.weight", (6, 64), "output", std=0.072 if fresh else 0.6, fresh=fresh)
    h, diagnosis = History(Facts({"head.weight": head}, frozen=True), 1000), Diagnosis()
    h.losses.add([5.1])
    h.add(Observation(0, {}, {}, Output("cross_entropy", math.log(6), 5.1, 0.1, 3.5)))
    diagnosis.update(h)
    assert {f.severity for f in diagnosis.findings if f.rule in ("R01", "R02")} == {severity}
