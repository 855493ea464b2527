"""Layers that clamp, fall silent as a whole, or are fed with zeros, on made-up histories."""

from __future__ import annotations

import math

import pytest
from torch import nn

from bnlm.doctor import Diagnosis, Facts, Finding, History, Observation, Output, facts_of
from bnlm.doctor.facts import ParameterFacts
from bnlm.probe import Heard


def found(of: History) -> dict[str, Finding]:
    diagnosis = Diagnosis()
    diagnosis.update(of)
    return {finding.rule: finding for finding in diagnosis.findings}


@pytest.mark.parametrize(
    ("share", "relu6", "severity", "where"),
    [
        (0.55, 0.8, None, None),
        (0.75, 0.8, "warning", "1"),
        (0.95, 0.8, "critical", "1"),
        (0.55, 0.88, "warning", "3"),  # half of a relu6's outputs are zero, and a third at 6
    ],
)
def test_a_clamp_is_judged_by_its_own_limit(
    share: float, relu6: float, severity: str | None, where: str | None
) -> None:
    facts = facts_of(nn.Sequential(nn.Linear(4, 8), nn.Hardtanh(), nn.Linear(8, 8), nn.ReLU6(), nn.Linear(8, 2)))
    assert facts.clamps == {"1": True, "3": False}
    h = History(facts, 1000)
    h.add(Observation(0, {"saturation": {"1": share, "3": relu6}}, {"1": "hardtanh", "3": "hardtanh"}))
    finding = found(h).get("R03")
    assert (finding and finding.severity) == severity
    assert (finding and finding.where) == where


@pytest.mark.parametrize(("silent_from", "expected"), [(90, True), (110, False), (999, False)])
def test_a_layer_that_falls_silent(silent_from: int, expected: bool) -> None:
    h = History(Facts(), 1000)
    for step in range(0, 120, 10):
        std = 0.0 if step >= silent_from else 0.5
        h.add(Observation(step, {"activation_std": {"b": std}, "dead_units": {"b": 0.05}}, {"b": "relu"}))
    assert ("R04" in found(h)) == expected


@pytest.mark.parametrize(
    ("kind", "below", "says"),
    [
        ("hardswish", -0.6, None),  # below zero it has a slope all the same
        ("hardswish", -4.0, "have not responded to any example"),
        ("relu", -0.6, "have not responded to any example"),
        ("tanh", 0.0, "were on their flat part for every example"),
    ],
)
def test_units_that_do_not_respond(kind: str, below: float, says: str | None) -> None:
    h = History(Facts(), 1000)
    for step in range(0, 120, 10):
        h.add(Observation(step, {"dead_units": {"b": 0.9}, "preactivation_mean": {"b": below}}, {"b": kind}))
    messages = [finding.message for finding in found(h).values() if finding.rule == "R04"]
    assert [says for message in messages if says is None or says in message] == ([] if says is None else [says])


@pytest.mark.parametrize(("bias", "expected"), [(0.1, False), (0.0, True)])
def test_a_weight_whose_bias_learns_is_not_frozen(bias: float, expected: bool) -> None:
    parameters = {"a.weight": ParameterFacts("a.weight", (9, 8), "hidden", std=0.3)}
    h = History(Facts(parameters), 1000)
    for step in range(0, 130, 10):
        statistics = {"gradient_std": {"a.weight": 0.0, "a.bias": bias}, "update_to_data": {"a.weight": -math.inf}}
        h.losses.add([2.3] * 10)
        h.add(Observation(step, statistics, {}, Output("cross_entropy", 2.3, 2.3, 0.01, 0.1)))
    assert ("R12" in found(h)) == expected
    assert ("R10" in found(h)) == expected


@pytest.mark.parametrize(
    ("loss", "error", "spread", "frozen", "severity"),
    [
        (5.0, 1.2, 4.0, False, "critical"),  # one batch of large logits is far from certain, but they know nothing
        (5.0, 1.2, 4.0, True, None),  # a network that is fine-tuned is sure of its old task
        (5.0, 1.2, 1.2, False, None),
        (1.5, 0.5, 4.0, False, "note"),
    ],
)
def test_a_first_loss_of_large_logits(
    loss: float, error: float, spread: float, frozen: bool, severity: str | None
) -> None:
    h = History(Facts(frozen=frozen), 1000)
    h.add(Observation(0, {}, {}, Output("cross_entropy", math.log(10), loss, error, spread)))
    finding = found(h).get("R02") or found(h).get("R01")
    assert (finding and finding.severity) == severity


def test_outputs_that_explode_are_no_matter_of_a_standard_error() -> None:
    for loss, expected in ((1e6, True), (5.0, False)):
        h = History(Facts(), 1000)
        h.add(Observation(0, {}, {}, Output("regression", 1.0, loss, loss, math.nan)))
        assert ("R01" in found(h)) == expected


def test_gradients_are_read_in_forward_order() -> None:
    for shift, name in ((1.0, "exploding_gradient"), (-1.0, "vanishing_gradient")):
        h = History(Facts(), 1000)
        stds = {f"layer{i}": 10.0 ** (-shift * i) for i in reversed(range(4))}  # as the backward pass meets them
        h.add(Observation(0, {"activation_gradient_std": stds}, dict.fromkeys(sorted(stds), "relu")))
        assert found(h)["R06"].name == name


def test_batches_of_one_that_torch_refuses() -> None:
    diagnosis = Diagnosis()
    with pytest.raises(ValueError, match="more than 1 value per channel") as refused:
        nn.BatchNorm1d(3)(nn.Linear(2, 3)(nn.Linear(2, 2).weight[:1]))
    assert [finding.severity for finding in diagnosis.refused(refused.value, 0)] == ["critical"]
    assert [finding.rule for finding in diagnosis.findings] == ["R16"]
    assert Diagnosis().refused(ValueError("something else"), 0) == []


@pytest.mark.parametrize(
    ("share", "last", "severity"),
    [
        (0.6, 2.3, "warning"),
        (0.6, 0.9, "note"),  # what it has learned shows that enough gradient passes
        (0.95, 0.9, "critical"),
        (0.4, 2.3, None),
    ],
)
def test_flat_units_of_a_network_that_learns(share: float, last: float, severity: str | None) -> None:
    diagnosis, h = Diagnosis(), History(Facts(), 1000)
    for step in range(0, 600, 10):
        learned = last if step >= 300 else 2.3
        h.losses.add([learned] * 10)
        flat = share if step >= 100 else 0.1
        h.add(Observation(step, {"saturation": {"a": flat}}, {"a": "tanh"}, Output("cross_entropy", 2.3, 2.3, 0.01, 0)))
        diagnosis.update(h)
    finding = next((f for f in diagnosis.findings if f.rule == "R03"), None)
    assert (finding and finding.severity) == severity


@pytest.mark.parametrize(
    ("kind", "last", "expected"),
    [
        ("binary_cross_entropy", 2.2, False),  # the loss would tell
        (None, 0.9, False),
        (None, 2.2, True),
        ("regression", 2.2, True),
    ],
)
def test_probabilities_become_sure(kind: str | None, last: float, expected: bool) -> None:
    h = History(Facts(), 1000)
    output = None if kind is None else Output(kind, 2.3, 2.3, 0.01, math.nan, 2.3)
    for step in range(0, 600, 10):
        h.losses.add([last if step >= 300 else 2.3] * 10)
        share = 0.95 if step >= 100 else 0.1
        statistics = {"saturation": {"sigmoid": share}, "dead_units": {"sigmoid": share}}
        h.add(Observation(step, statistics, {"sigmoid": "sigmoid"}, output, heard=Heard(outputs={"sigmoid"})))
    assert ("R03" in found(h), "R04" in found(h)) == (expected, expected)


@pytest.mark.parametrize(
    ("kind", "spread", "expected"),
    [
        ("binary_cross_entropy", 0.1, False),  # its bias says that what is looked for is rare
        ("binary_cross_entropy", 4.0, True),
        ("regression", 0.1, True),
    ],
)
def test_a_probability_that_starts_small(kind: str, spread: float, expected: bool) -> None:
    h = History(Facts(), 1000)
    statistics = {"saturation": {"a": 0.1, "sigmoid": 1.0}, "preactivation_std": {"a": 1.0, "sigmoid": spread}}
    output = Output(kind, 0.7, 0.7, 0.01, math.nan)
    kinds = {"a": "tanh", "sigmoid": "sigmoid"}
    h.add(Observation(0, statistics, kinds, output, heard=Heard(outputs={"sigmoid"})))
    assert ("R03" in found(h)) == expected


@pytest.mark.parametrize(
    ("elements", "severity"), [((100, 100), "critical"), ((4096, 64), "note"), ((64, 4096), "critical")]
)
def test_gradients_over_large_maps_are_smaller(elements: tuple[int, int], severity: str) -> None:
    """torch's default init on three convolutions with pooling and two linear layers: 0.008 of the std comes back."""
    h = History(Facts(), 1000)
    layers = ["a", "b", "c", "d"]
    statistics = {
        "activation_gradient_std": dict(zip(layers, (1.7e-5, 1e-4, 5e-4, 2.2e-3), strict=True)),
        "activation_elements": dict(zip(layers, (elements[0], 1000, 1000, elements[1]), strict=True)),
    }
    h.add(Observation(0, statistics, dict.fromkeys(layers, "relu")))
    assert found(h)["R06"].severity == severity


@pytest.mark.parametrize(("gradients", "expected"), [({"a": 0.0}, True), ({}, False), ({"a": 0.1}, False)])
def test_zeros_without_a_backward_pass_are_no_symmetry(gradients: dict[str, float], expected: bool) -> None:
    h = History(Facts({"a": ParameterFacts("a", (9, 8), "hidden", std=0.0, zero=True)}), 1000)
    h.add(Observation(0, {"gradient_std": gradients}, {}))
    assert ("R20" in found(h)) == expected


@pytest.mark.parametrize(("weight", "expected"), [(0.1, "note"), (0.0, "critical")])
def test_a_bias_that_cancels(weight: float, expected: str) -> None:
    """Of a difference between two outputs the last bias is no part; its weight is."""
    parameters = {
        "a.weight": ParameterFacts("a.weight", (9, 8), "hidden", std=0.3),
        "a.bias": ParameterFacts("a.bias", (9,), "vector", std=0.3),
    }
    h = History(Facts(parameters), 1000)
    for step in range(0, 130, 10):
        h.add(Observation(step, {"gradient_std": {"a.weight": weight, "a.bias": 0.0}}, {}))
    finding = found(h)["R12"]
    assert finding.severity == expected
    assert ("bias=False" in finding.suggestion) == (expected == "note")


@pytest.mark.parametrize(
    ("kind", "ratio", "severity"),
    [
        ("tanh", 0.05, None),  # 0.46 for each of four steps is 0.045: torch's default init keeps 0.58
        ("tanh", 0.03, "warning"),
        ("relu", 0.03, None),
        ("relu", 0.008, "critical"),
        ("gelu", 0.02, None),
        ("gelu", 0.008, "critical"),  # so little comes back that the usual init is to blame
        ("tanh", 30.0, "warning"),
    ],
)
def test_gradients_that_fade_no_faster_than_by_a_usual_init(kind: str, ratio: float, severity: str | None) -> None:
    h, layers = History(Facts(), 1000), list("abcde")
    for step in range(0, 400, 10):
        h.losses.add([2.3] * 10)
        stds = dict(zip(layers, (ratio, 0.1, 0.3, 0.5, 1.0), strict=True)) if step else dict.fromkeys(layers, 1.0)
        h.add(Observation(step, {"activation_gradient_std": stds}, dict.fromkeys(layers, kind)))
    finding = found(h).get("R06")
    assert (finding and finding.severity) == severity


@pytest.mark.parametrize(("others", "update", "expected"), [(1, -0.2, True), (6, -0.2, False), (6, 0.1, True)])
def test_a_first_step_that_is_large_for_one_layer_of_many(others: int, update: float, expected: bool) -> None:
    names = ["w", *(f"v{i}" for i in range(others))]
    h = History(Facts({name: ParameterFacts(name, (9, 8), "hidden", std=0.3) for name in names}), 1000)
    h.add(Observation(0, {"update_to_data": {"w": update, **dict.fromkeys(names[1:], -0.8)}}, {}))
    assert ("R09" in found(h)) == expected


@pytest.mark.parametrize(("called", "expected"), [(1, False), (12, True)])
def test_a_layer_that_is_called_for_the_first_time(called: int, expected: bool) -> None:
    """A relu under a logarithm, say, in the batch that ends in nan."""
    h = History(Facts(), 1000)
    for step in range(0, 160, 10):
        shares = {"a": 0.0} | ({"b": 1.0} if step >= 160 - 10 * called else {})
        h.add(Observation(step, {"dead_units": shares}, {"a": "relu", "b": "relu"}))
    assert ("R04" in found(h)) == expected


@pytest.mark.parametrize(("loss", "expected"), [(0.36, None), (0.45, "critical")])
def test_outputs_that_are_rightly_at_the_ends(loss: float, expected: str | None) -> None:
    """As of pictures that are black but for a few lines, once the loss is below that of a constant."""
    h = History(Facts({"w": ParameterFacts("w", (64, 32), "output", std=0.1)}), 1000)
    for step in range(0, 200, 10):
        h.losses.add([loss] * 10)
        output = Output("regression", 1.0, loss, 0.01, math.nan, 0.39, floor=0.0, activation="tanh")
        h.add(Observation(step, {"saturation": {"act": 0.96}}, {"act": "tanh"}, output))
    finding = found(h).get("R03")
    assert (finding and finding.severity) == expected


@pytest.mark.parametrize(("loss", "severity"), [(0.05, "note"), (0.6, "critical")])
def test_a_dead_layer_that_is_not_needed(loss: float, severity: str) -> None:
    """As the few units of a gate beside all that is learned."""
    h = History(Facts(), 1000)
    for step in range(0, 200, 10):
        h.losses.add([1.0 if step < 20 else loss] * 10)
        h.add(Observation(step, {"dead_units": {"gate": float(step > 0)}}, {"gate": "relu"}))
    assert found(h)["R04"].severity == severity
