"""Which finding explains which, and which is named first."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable

import pytest

from bnlm.doctor import Diagnosis, Facts, Finding, History, Observation, Output
from bnlm.doctor.batch_norm_rules import NEVER
from bnlm.doctor.causes import explained as explained_by
from bnlm.doctor.dropout_rules import LESS_DROPOUT
from bnlm.doctor.facts import ParameterFacts
from bnlm.doctor.finding import RULES
from bnlm.doctor.loss_rules import DIFFERENT, SIGN, TOO
from bnlm.doctor.optimizer_rules import ZERO_GRAD
from bnlm.doctor.output_rules import BRING
from bnlm.doctor.small_update_rules import CLIP_LESS, SCHEDULES
from bnlm.doctor.spike_rules import BATCHES
from bnlm.doctor.standstill_rules import ZEROS
from bnlm.doctor.unreachable_rules import SHAPES
from bnlm.doctor.weight_decay import LOWER_DECAY
from bnlm.doctor.weight_scale_rules import DRAW_LARGER


def explained(*found: tuple[str, str, int, float]) -> dict[str, str | None]:
    diagnosis = Diagnosis()
    diagnosis.restore([Finding(rule, severity, "w", step, value, 1.0, "", "") for rule, severity, step, value in found])
    return {finding.rule: finding.caused_by for finding in diagnosis.findings}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        # Activations that blow up with depth make the output large; those that fade do not.
        ([("R05", "critical", 0, 300.0), ("R02", "critical", 0, 4.0)], {"R05": None, "R02": "R05"}),
        ([("R05", "critical", 0, 0.001), ("R02", "critical", 0, 4.0)], {"R02": None, "R05": None}),
        # So is what overflows.
        ([("R05", "critical", 0, 300.0), ("R08", "critical", 0, 1.0)], {"R05": None, "R08": "R05"}),
        ([("R05", "warning", 0, 0.08), ("R08", "critical", 0, 1.0)], {"R08": None, "R05": None}),
        ([("R06", "critical", 0, 0.001), ("R08", "critical", 10, 1.0)], {"R06": None, "R08": None}),
        # Units that are alike add up.
        ([("R20", "critical", 0, 1.0), ("R01", "critical", 0, 17.0)], {"R20": None, "R01": "R20"}),
        # The first step comes after the first forward.
        ([("R09", "critical", 0, 0.1), ("R04", "critical", 0, 0.9)], {"R04": None, "R09": None}),
        ([("R09", "critical", 0, 0.1), ("R04", "critical", 200, 0.9)], {"R09": None, "R04": "R09"}),
        # Layers that move at their own speed make spikes at once; spikes make a layer slow after a while.
        ([("R11", "warning", 70, 2.0), ("R07", "warning", 40, 3.0)], {"R11": None, "R07": "R11"}),
        ([("R11", "warning", 500, 2.0), ("R07", "warning", 40, 3.0)], {"R07": None, "R11": None}),
        # A gradient that fades a little is no reason for steps that are too small; one that vanishes is.
        ([("R06", "warning", 100, 0.05), ("R10", "critical", 100, -5.5)], {"R10": None, "R06": "R10"}),
        ([("R06", "critical", 100, 0.001), ("R10", "critical", 100, -5.5)], {"R06": None, "R10": "R06"}),
        ([("R10", "warning", 250, -4.1), ("R13", "critical", 400, 2.3)], {"R10": None, "R13": "R10"}),
        ([("R10", "warning", 250, -3.8), ("R13", "critical", 400, 2.3)], {"R13": None, "R10": None}),
        # What healthy networks have too, in its mild form, explains nothing critical, and no other speeds.
        ([("R06", "warning", 100, 0.05), ("R13", "critical", 400, 2.3)], {"R13": None, "R06": None}),
        ([("R06", "critical", 100, 0.001), ("R13", "critical", 400, 2.3)], {"R06": None, "R13": "R06"}),
        ([("R11", "warning", 70, 2.0), ("R13", "critical", 400, 2.3)], {"R13": None, "R11": None}),
        ([("R06", "warning", 100, 0.05), ("R11", "warning", 70, 3.0)], {"R11": None, "R06": None}),
        ([("R09", "warning", 100, -1.7), ("R15", "warning", 160, 0.4)], {"R09": None, "R15": None}),
        # A scale that is wrong from the start makes SGD's steps large; later ones do not explain earlier ones.
        ([("R05", "warning", 0, 20.0), ("R09", "critical", 10, -0.5)], {"R05": None, "R09": "R05"}),
        ([("R05", "warning", 0, 0.05), ("R09", "critical", 10, -0.5)], {"R09": None, "R05": None}),
        ([("R02", "critical", 0, 9.0), ("R09", "critical", 0, -0.2)], {"R02": None, "R09": "R02"}),
        # Large steps keep a loss above chance (the limit is 1); at chance there is nothing to be learned.
        ([("R09", "warning", 250, -1.6), ("R13", "critical", 400, 1.05)], {"R09": None, "R13": "R09"}),
        ([("R09", "warning", 250, -1.6), ("R13", "critical", 400, 1.01)], {"R13": None, "R09": None}),
        ([("R09", "warning", 250, -1.9), ("R13", "critical", 400, 1.05)], {"R13": None, "R09": None}),
        ([("R09", "critical", 250, -0.6), ("R13", "critical", 400, 1.01)], {"R09": None, "R13": "R09"}),
        # A rate that ruins a network stops its gradients; what never had one is another matter (R12's value: steps).
        ([("R09", "critical", 40, -0.1), ("R12", "critical", 30, 20.0)], {"R09": None, "R12": "R09"}),
        ([("R09", "critical", 40, -0.1), ("R12", "critical", 30, 30.0)], {"R12": None, "R09": None}),
        # What diverges dies in the end.
        ([("R14", "warning", 180, 1.4), ("R04", "critical", 300, 1.0)], {"R14": None, "R04": "R14"}),
        ([("R14", "warning", 300, 1.4), ("R04", "critical", 300, 1.0)], {"R04": None, "R14": None}),
        # Statistics over two values make steps large, over eight hardly so.
        ([("R16", "warning", 0, 2.0), ("R09", "critical", 250, -0.6)], {"R16": None, "R09": "R16"}),
        ([("R16", "warning", 0, 7.0), ("R09", "critical", 250, -0.6)], {"R09": None, "R16": None}),
        # Spikes are of a run that diverges, whose weights die then, unless they were dead before.
        ([("R07", "warning", 90, 6.0), ("R14", "critical", 100, 9.0)], {"R14": None, "R07": "R14"}),
        ([("R14", "critical", 100, 9.0), ("R12", "critical", 190, 60.0)], {"R14": None, "R12": "R14"}),
        ([("R14", "critical", 100, 9.0), ("R12", "critical", 20, 60.0)], {"R12": None, "R14": None}),
        ([("R14", "critical", 100, 9.0), ("R17", "critical", 120, 60.0)], {"R14": None, "R17": "R14"}),
        ([("R14", "warning", 100, 1.4), ("R17", "critical", 120, 60.0)], {"R17": None, "R14": None}),
        # What moves too fast saturates; what is flat from the start moves at its own speed.
        ([("R11", "warning", 70, 2.0), ("R03", "critical", 40, 0.95)], {"R03": None, "R11": None}),
        ([("R11", "warning", 70, 2.0), ("R03", "critical", 0, 0.95)], {"R03": None, "R11": "R03"}),
        # A single value less its mean is zero.
        ([("R16", "critical", 0, 1.0), ("R04", "critical", 0, 1.0)], {"R16": None, "R04": "R16"}),
        ([("R16", "warning", 0, 2.0), ("R04", "critical", 0, 1.0)], {"R04": None, "R16": None}),
        ([("R16", "critical", 0, 1.0), ("R08", "critical", 0, 1.0)], {"R16": None, "R08": "R16"}),
        # Statistics do not follow a first step larger than the weights.
        ([("R09", "warning", 0, 1.4), ("R17", "critical", 300, 12.0)], {"R09": None, "R17": "R09"}),
        ([("R09", "warning", 0, -0.2), ("R17", "critical", 300, 12.0)], {"R17": None, "R09": None}),
        # What has had no gradient since the start did not lose it to a step.
        ([("R09", "warning", 0, -0.3), ("R12", "critical", 20, 50.0)], {"R12": None, "R09": None}),
        ([("R09", "warning", 0, -0.3), ("R12", "critical", 90, 50.0)], {"R09": None, "R12": "R09"}),
        # Not in a circle.
        (
            [
                ("R14", "warning", 50, 1.4),
                ("R11", "warning", 90, 2.0),
                ("R06", "critical", 90, 0.001),
                ("R04", "critical", 90, 1.0),
            ],
            {"R04": None, "R06": "R04", "R11": "R06", "R14": "R11"},
        ),
        # Few values for a BatchNorm: what eval uses is of noise, and with next to none nothing is learned.
        ([("R16", "warning", 0, 2.0), ("R13", "critical", 400, 0.7)], {"R16": None, "R13": "R16"}),
        ([("R16", "warning", 0, 6.0), ("R13", "critical", 400, 0.7)], {"R13": None, "R16": None}),
        ([("R18", "critical", 0, 0.4), ("R15", "warning", 300, 0.4)], {"R18": None, "R15": "R18"}),
        # What died long after the gradient had faded did not make it fade.
        ([("R04", "critical", 160, 1.0), ("R06", "critical", 110, 1e-4)], {"R06": None, "R04": None}),
        ([("R04", "critical", 90, 1.0), ("R12", "critical", 60, 50.0)], {"R04": None, "R12": "R04"}),
        ([("R03", "critical", 90, 1.0), ("R12", "critical", 60, 50.0)], {"R03": None, "R12": "R03"}),
        ([("R03", "critical", 90, 0.95), ("R12", "critical", 60, 50.0)], {"R12": None, "R03": None}),
        ([("R08", "critical", 20, 3.0), ("R12", "critical", 60, 50.0)], {"R08": None, "R12": "R08"}),
        ([("R08", "critical", 80, 3.0), ("R12", "critical", 60, 50.0)], {"R12": None, "R08": None}),
        ([("R16", "warning", 0, 2.0), ("R11", "warning", 70, 2.1)], {"R16": None, "R11": "R16"}),
        # A remark explains nothing.
        ([("R05", "note", 0, 300.0), ("R02", "warning", 0, 2.0)], {"R02": None, "R05": None}),
    ],
)
def test_causes(found: list[tuple[str, str, int, float]], expected: dict[str, str | None]) -> None:
    assert list(explained(*found).items()) == list(expected.items())  # in this order


def test_what_rescales_its_gradients_takes_no_larger_steps_for_a_wrong_scale() -> None:
    facts = Facts({"w": ParameterFacts("w", (9, 8), "hidden", std=0.3)}, rescales=True)
    h = History(facts, 1000)
    diagnosis = Diagnosis()
    diagnosis.restore(
        [
            Finding("R05", "critical", "w", 0, 300.0, 10.0, "", ""),
            Finding("R09", "critical", "w", 10, -0.5, -1.8, "", ""),
        ]
    )
    h.add(Observation(20, {}, {}))
    diagnosis.update(h)
    assert [(finding.rule, finding.caused_by) for finding in diagnosis.findings] == [("R05", None), ("R09", None)]


@pytest.mark.parametrize("step", [80, 100])
@pytest.mark.parametrize(("ratio", "cause"), [(1e-15, "R06"), (1e-3, None)])
def test_gradients_below_what_adam_divides_by_make_its_steps_small(ratio: float, cause: str | None, step: int) -> None:
    found = {
        "R06": Finding("R06", "critical", "w", 100, ratio, 0.1, "", ""),
        "R10": Finding("R10", "critical", "w", step, -5.2, -4.0, "", ""),
    }
    linked = {finding.rule: finding.caused_by for finding in explained_by(found, rescales=True)}
    assert linked == {"R10": cause, "R06": None if cause else "R10"}


def test_what_is_known_of_a_rise_is_not_asked_for() -> None:
    found = {
        "R09": Finding("R09", "critical", "w", 0, 0.4, -0.3, "", ""),
        "R14": Finding("R14", "critical", "loss", 40, 5.0, 1.3, "", f"Lower it.{TOO} look at the sign."),
    }
    advice = {finding.rule: finding.suggestion for finding in explained_by(found, rescales=True)}
    assert advice["R14"] == "Lower it."


@pytest.mark.parametrize(("advice", "cause"), [(LESS_DROPOUT, "R13"), ("Try to overfit a single batch", None)])
def test_heavy_dropout_makes_gradients_explode(advice: str, cause: str | None) -> None:
    found = {
        "R06": Finding("R06", "critical", "w", 0, 3000.0, 100.0, "", ""),
        "R13": Finding("R13", "critical", "loss", 270, 2.31, 2.26, "", advice),
    }
    linked = {finding.rule: finding.caused_by for finding in explained_by(found, rescales=True)}
    assert linked["R06"] == cause


def test_of_two_that_are_as_early_and_severe_the_cause_is_first() -> None:
    assert list(explained(("R01", "critical", 0, 9.0), ("R20", "critical", 0, 1.0))) == ["R20", "R01"]


@pytest.mark.parametrize(
    ("severity", "expected"),
    [
        ("critical", {"R02": None, "R01": "R02", "R13": None, "R06": "R13"}),
        ("note", {"R02": None, "R01": "R02", "R06": None, "R13": "R06"}),  # it stood still for a while
    ],
)
def test_a_certain_cause_leaves_what_it_does_not_explain(severity: str, expected: dict[str, str | None]) -> None:
    diagnosis = Diagnosis()
    found = [("R02", "critical", 0), ("R01", "critical", 0), ("R06", "critical", 100), ("R13", severity, 400)]
    diagnosis.restore([Finding(rule, degree, "w", step, 1e-4, 1.0, "", SHAPES) for rule, degree, step in found])
    assert {finding.rule: finding.caused_by for finding in diagnosis.findings} == expected


def test_what_becomes_of_a_note_begins_then() -> None:
    diagnosis = Diagnosis()
    diagnosis.restore([Finding("R06", "note", "w", 0, 0.05, 0.1, "", "")])
    diagnosis._take(iter([Finding("R06", "critical", "w", 200, 0.001, 0.1, "", "")]))
    assert [finding.step for finding in diagnosis.findings] == [200]


@pytest.mark.parametrize(
    ("end", "limit", "severity"),
    [(2.2, 2.26, "warning"), (1.5, 2.26, "note"), (1.5, 1.6, "warning")],  # held against what is known of the classes
)
def test_a_standstill_that_is_over(end: float, limit: float, severity: str) -> None:
    diagnosis, h = Diagnosis(), History(Facts(), 2000)
    h.add(Observation(0, {}, {}, Output("cross_entropy", math.log(10), 2.3, 0.01, 0.1)))
    h.losses.add([2.3] * 10 + [end] * 400)
    diagnosis.restore(
        [
            Finding("R06", "critical", "w", 0, 1e-4, 0.1, "faded at the start.", ""),
            Finding("R13", "warning", "loss", 100, 2.3, limit, "stood still.", ""),
        ]
    )
    diagnosis.update(h)
    found = {finding.rule: finding for finding in diagnosis.findings}
    assert found["R06"].severity == "critical"
    assert found["R13"].severity == severity
    assert ("After 410 steps the loss has fallen to 1.5." in found["R13"].message) == (severity == "note")


@pytest.mark.parametrize(
    ("ratio", "end", "severity"), [(1e-4, 0.5, "note"), (1e-4, 0.8, "critical"), (1e4, 0.5, "critical")]
)
def test_a_gradient_that_vanished_at_the_start_and_sufficed(ratio: float, end: float, severity: str) -> None:
    """torch's default init of convolutions with average pooling: a thousandth comes back, and they learn."""
    diagnosis, h = Diagnosis(), History(Facts(), 2000)
    h.add(Observation(0, {}, {}, Output("cross_entropy", math.log(10), 2.3, 0.01, 0.1)))
    h.losses.add([2.3] * 10 + [end] * 400)
    diagnosis.restore([Finding("R06", "critical", "w", 0, ratio, 0.01, "faded at the start.", "")])
    diagnosis.update(h)
    assert [finding.severity for finding in diagnosis.findings] == [severity]


def test_what_brings_about_the_most_severe_comes_first() -> None:
    found = explained(("R11", "warning", 70, 2.0), ("R10", "warning", 100, -4.4), ("R13", "critical", 500, 1.1))
    assert list(found.items()) == [("R10", None), ("R13", "R10"), ("R11", None)]


def test_no_finding_is_lost_among_causes() -> None:
    draw = random.Random(0)
    for _ in range(2000):
        rules = draw.sample(sorted(RULES), k=draw.randrange(1, 12))
        found = [
            (
                rule,
                draw.choice(["note", "warning", "critical"]),
                draw.choice([0, 10, 90, 300]),
                draw.choice([-4.0, 0.1, 3.0]),
            )
            for rule in rules
        ]
        assert sorted(explained(*found)) == sorted(rules)


@pytest.mark.parametrize(
    ("suggestion", "expected"),
    [
        (f"{BATCHES} of these steps", {"R07": None, "R09": "R07", "R14": "R09"}),
        ("Clip the gradients", {"R09": None, "R07": "R09", "R14": "R09"}),
    ],
)
def test_single_batches_and_the_steps_after_them(suggestion: str, expected: dict[str, str | None]) -> None:
    diagnosis = Diagnosis()
    diagnosis.restore(
        [
            Finding("R09", "critical", "w", 40, -0.9, -1.8, "", ""),
            Finding("R07", "warning", "loss", 60, 4.0, 3.0, "", suggestion),
            Finding("R14", "critical", "loss", 120, 3.5, 1.3, "", ""),
        ]
    )
    assert {finding.rule: finding.caused_by for finding in diagnosis.findings} == expected


@pytest.mark.parametrize("advice", [CLIP_LESS, *SCHEDULES, "Multiply optimizer.lr by 3 to 10."])
def test_steps_that_are_held_back_explain_what_fades(advice: str) -> None:
    diagnosis = Diagnosis()
    diagnosis.restore(
        [
            Finding("R06", "critical", "w", 90, 0.001, 1.0, "", ""),
            Finding("R10", "critical", "w", 100, -7.0, -4.0, "", advice),
            Finding("R13", "critical", "loss", 300, 2.3, 2.2, "", ""),
        ]
    )
    held_back = {"R10": None, "R06": "R10", "R13": "R10"}
    else_faded = {"R06": None, "R10": "R06", "R13": "R10"}
    by_rule = {finding.rule: finding.caused_by for finding in diagnosis.findings}
    assert by_rule == (else_faded if advice.startswith("Multiply") else held_back)


def test_steps_that_are_held_back_explain_nothing_of_the_start() -> None:
    found = {
        "R06": Finding("R06", "critical", "w", 0, 0.001, 1.0, "", ""),
        "R10": Finding("R10", "critical", "w", 100, -7.0, -4.0, "", CLIP_LESS),
    }
    assert {f.rule: f.caused_by for f in explained_by(found, rescales=False)} == {"R06": None, "R10": None}


def test_nothing_passes_weights_that_started_small() -> None:
    rules = {"R04": 90, "R06": 90, "R10": 200, "R11": 70, "R13": 200, "R09": 90}
    found = {rule: Finding(rule, "critical", "w", step, 0.001, 1.0, "", "") for rule, step in rules.items()}
    small = Finding("R05", "warning", "w", 200, 0.005, 0.1, "", DRAW_LARGER)
    by_rule = {f.rule: f.caused_by for f in explained_by({"R05": small, **found}, rescales=False)}
    assert by_rule["R05"] is None
    assert by_rule["R09"] is None
    assert all(by_rule[rule] is not None for rule in ("R04", "R06", "R10", "R11", "R13"))
    assert by_rule["R04"] == "R05"


def test_gradients_that_are_left_are_no_matter_of_single_batches() -> None:
    found = {
        "R09": Finding("R09", "critical", "optimizer", 30, 3.0, 3.0, "", f"{ZERO_GRAD} of the optimizer."),
        "R07": Finding("R07", "warning", "loss", 70, 8.0, 3.0, "", f"{BATCHES} of these steps."),
        "R14": Finding("R14", "critical", "loss", 40, 9.0, 1.3, "", ""),
    }
    by_rule = {f.rule: f.caused_by for f in explained_by(found, rescales=False)}
    assert by_rule == {"R09": None, "R07": "R09", "R14": "R09"}


@pytest.mark.parametrize(
    ("step", "severity", "cause"), [(40, "critical", "R09"), (40, "warning", None), (90, "critical", None)]
)
def test_where_steps_that_were_too_large_leave_a_network(step: int, severity: str, cause: str | None) -> None:
    """Hardly any gradient comes there, and no higher rate is wanted."""
    found = {
        "R09": Finding("R09", severity, "w", step, -0.9, -1.8, "", ""),
        "R10": Finding("R10", "warning", "w", 80, -4.2, -4.0, "", ""),
    }
    assert {f.rule: f.caused_by for f in explained_by(found, rescales=True)} == {"R09": None, "R10": cause}


@pytest.mark.parametrize(("step", "cause"), [(0, "R08"), (10, None)])
def test_what_overflows_before_any_step_is_flat(step: int, cause: str | None) -> None:
    found = {
        "R03": Finding("R03", "critical", "act", 0, 1.0, 0.3, "", ""),
        "R08": Finding("R08", "critical", "loss", step, 1.0, 0.0, "", ""),
    }
    assert {f.rule: f.caused_by for f in explained_by(found, rescales=True)}["R03"] == cause


@pytest.mark.parametrize(("single", "cause"), [(True, "R07"), (False, None)])
def test_single_batches_that_keep_a_loss_up(single: bool, cause: str | None) -> None:
    found = {
        "R13": Finding("R13", "critical", "loss", 200, 2.4, 2.3, "", ""),
        "R07": Finding("R07", "warning", "loss", 80, 8.0, 3.0, "", f"{BATCHES} of these steps." if single else "Clip."),
    }
    assert {f.rule: f.caused_by for f in explained_by(found, rescales=True)} == {"R07": None, "R13": cause}


@pytest.mark.parametrize(("leaps", "cause"), [(True, {"R09": "R14"}), (False, {"R14": "R09"})])
def test_what_leaps_for_good_is_no_matter_of_the_rate(leaps: bool, cause: dict[str, str]) -> None:
    found = {
        "R09": Finding("R09", "warning", "w", 200, -1.4, -1.8, "", ""),
        "R14": Finding("R14", "critical", "loss", 200, 4.0, 1.3, "", f"{DIFFERENT} from step 200 on." if leaps else ""),
    }
    by_rule = {f.rule: f.caused_by for f in explained_by(found, rescales=True)}
    assert {rule: by for rule, by in by_rule.items() if by is not None} == cause


def test_weights_that_decay_are_no_matter_of_the_sign() -> None:
    found = {
        "R09": Finding("R09", "warning", "w", 90, -0.7, -1.8, "", f"{LOWER_DECAY} (1) by 10 or more."),
        "R14": Finding("R14", "critical", "loss", 70, 1.9, 1.3, "", f"{SIGN}: it never fell."),
    }
    by_rule = {f.rule: f for f in explained_by(found, rescales=False)}
    assert (by_rule["R09"].caused_by, by_rule["R14"].caused_by) == (None, "R09")
    assert by_rule["R14"].suggestion == "Mend R09 updates_too_large first."


@pytest.mark.parametrize(
    ("steps", "height", "single"),
    [
        ((40, 70, 100, 130), 500.0, True),
        ((40, 41, 70, 100, *range(130, 150)), 500.0, False),  # and stays there
        ((20, 31, 43, 50, 110), 500.0, False),  # most of them at the start
        ((40, 41, 42, 43), 500.0, False),  # a step that went too far, and those that bring it back
        (
            (13, 14, 24, 31, 37, 46, 59, 70, 83, 92, 105, 116, 129, 138, 144),
            20.0,
            False,
        ),  # as many as of steps too large
        ((40, 70, 100, 130), 8.0, False),  # too low to make up the mean of all
    ],
)
def test_spikes_of_single_batches(steps: tuple[int, ...], height: float, single: bool) -> None:
    h = History(Facts(), 1000)
    for step in range(0, 150, 10):
        h.losses.add([height if step + i in steps else 1.0 + 0.01 * i for i in range(10)])
        h.add(Observation(step, {}, {}, Output("cross_entropy", 2.0, 1.0, 0.01, 0.1)))
    diagnosis = Diagnosis()
    diagnosis.update(h)
    (found,) = [finding for finding in diagnosis.findings if finding.rule == "R07"]
    assert found.suggestion.startswith(BATCHES) == single
    assert ("the median is 1.0" in found.message) == single


def test_single_batches_that_are_no_rarity() -> None:
    """Every tenth is out of scale, at no fixed distance: the first came out of calm, and so do all others."""
    h = History(Facts(), 1000)
    steps = (13, 24, 37, 46, 59, 70, 83, 92, 105, 116, 129, 138, 144)
    for step in range(0, 150, 10):
        h.losses.add([500.0 if step + i in steps else 1.0 + 0.01 * i for i in range(10)])
        h.add(Observation(step, {}, {}, Output("cross_entropy", 2.0, 1.0, 0.01, 0.1)))
    diagnosis = Diagnosis()
    diagnosis.update(h)
    by_rule = {finding.rule: finding for finding in diagnosis.findings}
    assert by_rule["R07"].suggestion.startswith(BATCHES)
    assert "began at once, with step 14" in by_rule["R07"].message


@pytest.mark.parametrize(("clip", "norm", "told"), [(1.0, 4.0, True), (1.0, 0.9, False), (0.0, 4.0, False)])
def test_gradients_that_are_always_clipped(clip: float, norm: float, told: bool) -> None:
    h = History(Facts(), 1000)
    h.clip = clip
    for step in range(0, 200, 10):
        h.losses.add([2.0 - 0.005 * step] * 10)
        h.add(Observation(step, {"gradient_norm": {"total": norm}}, {}, Output("cross_entropy", 2.0, 2.0, 0.01, 0.1)))
    diagnosis = Diagnosis()
    diagnosis.update(h)
    found = {finding.rule: finding for finding in diagnosis.findings}.get("R07")
    assert (found is not None) == told
    assert found is None or (found.severity == "note" and "to 0.25 of its norm" in found.message)


@pytest.mark.parametrize(
    ("norm", "update", "left", "rescales", "severity"),
    [
        (20.0, -3.0, 0.8, False, "warning"),
        (5.0, -3.0, 0.8, False, "warning"),
        (3.0, -3.0, 0.8, False, "note"),
        (20.0, -2.6, 0.8, False, "note"),
        (20.0, -3.0, 0.4, False, "note"),
        (20.0, -3.0, 0.8, True, "note"),  # whose steps are as large whatever is left of a gradient
    ],
)
def test_clipping_that_slows_a_network_down(
    norm: float, update: float, left: float, rescales: bool, severity: str
) -> None:
    h = History(Facts({"w": ParameterFacts("w", (9, 100), "hidden", std=0.1)}, rescales=rescales), 400)
    h.clip = 1.0
    for step in range(0, 400, 10):
        h.losses.add([2.0 - (2.0 - 2.0 * left) * step / 390] * 10)
        statistics = {"gradient_norm": {"total": norm}, "update_to_data": {"w": update}, "gradient_std": {"w": 1.0}}
        h.add(Observation(step, statistics, {}, Output("cross_entropy", 2.0, 2.0, 0.01, 0.1)))
    diagnosis = Diagnosis()
    diagnosis.update(h)
    found = {finding.rule: finding for finding in diagnosis.findings}["R07"]
    assert found.severity == severity
    assert found.suggestion.startswith("Raise trainer.gradient_clip_val=1 by 10") == (severity == "warning")


@pytest.mark.parametrize(("clip", "severity"), [(0.05, "warning"), (0.5, "note")])
def test_clipping_of_every_step_by_far(clip: float, severity: str) -> None:
    """Whatever comes of it: who means single steps clips at more."""
    h = History(Facts(), 400)
    h.clip = clip
    for step in range(0, 200, 10):
        h.losses.add([2.0 - 0.005 * step] * 10)
        h.add(Observation(step, {"gradient_norm": {"total": 3.0}}, {}, Output("cross_entropy", 2.0, 2.0, 0.01, 0.1)))
    diagnosis = Diagnosis()
    diagnosis.update(h)
    found = {finding.rule: finding for finding in diagnosis.findings}["R07"]
    assert found.severity == severity
    assert ("to 1.0" in found.suggestion) == (severity == "warning")


@pytest.mark.parametrize(
    ("steps", "height", "returns"),
    [
        (range(31, 300, 17), 2.0, True),  # lower than knowing nothing costs, and as regular as a batch of each epoch
        ([*range(31, 230, 17), 64, 131], 2.0, True),  # and two others
        (range(31, 300, 7), 2.0, True),
        ((31, 45, 70, 79, 101, 130, 144, 180, 201, 222), 2.0, False),
        (range(31, 300, 17), 1.1, True),
        (range(31, 300, 17), 0.6, False),  # no more than the others by a factor of 2.5
        (range(31, 300, 4), 2.0, False),  # as of losses that are taken in turns
    ],
)
def test_spikes_that_come_back(steps: Iterable[int], height: float, returns: bool) -> None:
    h = History(Facts(), 1000)
    for step in range(0, 300, 10):
        h.losses.add([2.3 if step < 20 else height if step + i in steps else 0.25 for i in range(10)])
        h.add(Observation(step, {}, {}, Output("cross_entropy", 2.3, 2.3, 0.01, 0.1)))
    diagnosis = Diagnosis()
    diagnosis.update(h)
    found = [finding for finding in diagnosis.findings if finding.rule == "R07"]
    assert [finding.suggestion.startswith(BATCHES) for finding in found] == [True] * returns
    assert all("every 17 steps" in f.message or "every 7 steps" in f.message for f in found)


@pytest.mark.parametrize(("scale", "cause"), [(20.0, "R05"), (0.05, None)])
def test_beside_large_weights_steps_of_adam_are_small(scale: float, cause: str | None) -> None:
    found = {
        "R05": Finding("R05", "critical", "w", 0, scale, 1.0, "", ""),
        "R10": Finding("R10", "warning", "w", 100, -4.7, 1.0, "", ""),
    }
    by_rule = {finding.rule: finding for finding in explained_by(found, rescales=True)}
    assert by_rule["R10"].caused_by == cause


@pytest.mark.parametrize(("value", "change", "cause"), [(900.0, NEVER, "R17"), (3.0, NEVER, None), (900.0, "", None)])
def test_a_batch_norm_that_never_normalizes_explains_what_a_network_without_it_has(
    value: float, change: str, cause: str | None
) -> None:
    diagnosis = Diagnosis()
    found = [("R04", "critical", 0, 1.0, ""), ("R13", "critical", 400, 2.3, ""), ("R17", "warning", 93, value, change)]
    diagnosis.restore([Finding(rule, severe, "w", step, v, 1.0, "", text) for rule, severe, step, v, text in found])
    assert {f.rule: f.caused_by for f in diagnosis.findings}["R04"] == cause


def test_how_long_there_was_no_gradient_at_first_sight_is_kept() -> None:
    """It tells whether there was one before, and the steps go on."""
    diagnosis = Diagnosis()
    h = History(Facts({"w": ParameterFacts("w", (90, 100), "hidden", std=0.1)}), 1000)
    for step in range(0, 130, 10):
        h.losses.add([2.3] * 10)
        h.add(Observation(step, {"gradient_std": {"w": 1.0 if step < 40 else 0.0}}, {}))
        diagnosis.update(h)
    finding = next(f for f in diagnosis.findings if f.rule == "R12")
    assert (finding.severity, finding.step, finding.value) == ("critical", 60, 20)
    assert "no gradient for 80 steps" in finding.message


@pytest.mark.parametrize(("rescales", "first"), [(False, "R06"), (True, "R10")])
def test_a_gradient_that_vanishes_makes_no_small_steps_of_adam(rescales: bool, first: str) -> None:
    diagnosis = Diagnosis()
    found = [("R06", "critical", 100, 0.001), ("R10", "warning", 100, -4.7)]
    diagnosis.restore([Finding(rule, severity, "w", step, value, 1.0, "", "") for rule, severity, step, value in found])
    diagnosis._rescales = rescales
    assert diagnosis.findings[0].rule == first


@pytest.mark.parametrize(("rose_at", "expected"), [(90, "R14"), (300, "R13")])
def test_nothing_comes_in_once_a_run_that_diverged_is_dead(rose_at: int, expected: str) -> None:
    diagnosis = Diagnosis()
    diagnosis.restore(
        [
            Finding("R14", "critical", "loss", rose_at, 50.0, 1.3, "", ""),
            Finding("R04", "critical", "w", 140, 1.0, 0.5, "", ""),
            Finding("R13", "critical", "loss", 200, 9.0, 1.0, "", f"{ZEROS}: nothing but zeros comes to w."),
        ]
    )
    assert {finding.rule: finding.caused_by for finding in diagnosis.findings}["R04"] == expected


@pytest.mark.parametrize(("suggestion", "cause", "of"), [(SIGN, "R14", "R08"), ("Lower optimizer.lr", "R08", "R14")])
def test_what_goes_the_wrong_way_ends_in_nan(suggestion: str, cause: str, of: str) -> None:
    """Whichever is seen first."""
    diagnosis = Diagnosis()
    rise, blown = (
        Finding(r, "critical", "loss", s, 1.0, 1.0, "", t) for r, s, t in (("R14", 200, suggestion), ("R08", 30, ""))
    )
    diagnosis.restore([rise, blown])
    assert {f.rule: f.caused_by for f in diagnosis.findings} == {cause: None, of: cause}


@pytest.mark.parametrize(("suggestion", "cause"), [(f"{BRING}, or so.", "R01"), ("Scale the output layer down.", None)])
def test_targets_far_from_zero_drive_units_to_their_limits(suggestion: str, cause: str | None) -> None:
    diagnosis = Diagnosis()
    diagnosis.restore(
        [
            Finding("R01", "warning", "output", 0, 50.0, 10.0, "", suggestion),
            Finding("R03", "critical", "a", 70, 0.95, 0.5, "", ""),
            Finding("R13", "warning", "loss", 200, 9.0, 1.0, "", ""),
        ]
    )
    causes = {finding.rule: finding.caused_by for finding in diagnosis.findings}
    assert causes == {"R01": None, "R03": cause, "R13": "R03"}
