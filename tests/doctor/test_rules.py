"""Single rules on made-up histories, each side of its limit."""

from __future__ import annotations

import dataclasses
import math
import random

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bnlm.doctor import Diagnosis, Facts, Finding, History, Observation, Output, StatisticsGap, check
from bnlm.doctor.facts import ParameterFacts


def history(total: float = 1000, **parameters: ParameterFacts) -> History:
    return History(Facts(parameters=parameters), total)


def observation(step: int, **scalars: float) -> Observation:
    statistics: dict[str, dict[str, float]] = {}
    for tag, value in scalars.items():
        statistic, name = tag.split("__")
        statistics.setdefault(statistic, {})[name] = value
    return Observation(step, statistics, {"a": "tanh", "b": "relu"})


def found(of: History) -> dict[str, Finding]:
    diagnosis = Diagnosis()
    diagnosis.update(of)
    return {finding.rule: finding for finding in diagnosis.findings}


@pytest.mark.parametrize(
    ("loss", "spread", "expected"),
    [
        (2.30, 0.3, {}),
        (2.50, 0.3, {}),
        (2.70, 0.6, {"R01": "note"}),  # torch's default output layer after a normalization
        (2.90, 1.2, {"R01": "note", "R02": "note"}),  # an output layer of gain 1
        (2.90, 1.6, {"R01": "warning", "R02": "warning"}),
        (3.70, 3.5, {"R01": "critical", "R02": "critical"}),
        (1.70, 4.0, {"R01": "note"}),  # trained before: sure of itself, and right
    ],
)
def test_first_loss(loss: float, spread: float, expected: dict[str, str]) -> None:
    h = history()
    h.add(Observation(0, {}, {}, Output("cross_entropy", math.log(10), loss, 0.01, spread)))
    assert {rule: finding.severity for rule, finding in found(h).items()} == expected


@pytest.mark.parametrize(("loss", "severity"), [(0.75, None), (0.9, "note"), (1.1, "warning"), (1.5, "critical")])
def test_first_loss_of_single_logits(loss: float, severity: str | None) -> None:
    """Where few are positive, what torch's default output layer makes of one logit costs up to 1.5 of ln 2."""
    h = history()
    h.add(Observation(0, {}, {}, Output("binary_cross_entropy", math.log(2), loss, 0.01, math.nan)))
    assert {rule: finding.severity for rule, finding in found(h).items()} == ({"R01": severity} if severity else {})


@pytest.mark.parametrize(
    ("activation", "gain", "severities"),
    [
        (nn.ReLU, None, {"note"}),  # torch's default init
        (nn.GELU, None, {"note"}),
        (nn.SiLU, None, {"note"}),
        (nn.ReLU, 2**0.5, set()),
        (nn.ReLU, 0.2, {"critical"}),
        (nn.ReLU, 8.0, {"critical"}),
    ],
)
def test_activations_and_gradients_over_depth(
    activation: type[nn.Module], gain: float | None, severities: set[str]
) -> None:
    """Six layers of torch's default init train well with Adam, though both fade by 20 to 1000 times."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for fan_in in (20, *[128] * 5):
        layers += [nn.Linear(fan_in, 128), activation()]
        if gain is not None:
            nn.init.normal_(layers[-2].weight, 0, gain / fan_in**0.5)
            nn.init.zeros_(layers[-2].bias)
    network = nn.Sequential(*layers, nn.Linear(128, 10))
    batch = torch.randn(64, 20), torch.randint(10, (64,))
    findings = check(network, batch, F.cross_entropy, table=False)
    assert {f.severity for f in findings if f.rule in ("R05", "R06")} == severities


def test_a_start_in_the_middle_is_no_start() -> None:
    h = history()
    h.add(Observation(500, {}, {}, Output("cross_entropy", math.log(10), 5.0, 0.01, 3.0)))
    assert "R01" not in found(h)


@pytest.mark.parametrize(("allowed", "overflows", "critical"), [(0, 1, True), (4, 4, False), (4, 5, True)])
def test_overflows_of_a_scaler(allowed: int, overflows: int, critical: bool) -> None:
    h = history()
    h.overflows_allowed = allowed
    h.add(observation(0, gradient_norm__total=1.0))
    for step in range(1, overflows + 1):
        h.add(observation(step, gradient_norm__total=math.inf))
    assert ("R08" in found(h)) == critical


@pytest.mark.parametrize(
    ("change", "feeds_norm", "suffers", "severity"),
    [
        (-2.5, False, True, None),
        (-1.7, False, False, "note"),  # small networks that train well reach -1.3
        (-1.7, False, True, "warning"),
        (-0.9, False, False, "critical"),
        (-1.7, True, True, None),
        (-1.2, True, True, "warning"),
    ],
)
def test_updates(change: float, feeds_norm: bool, suffers: bool, severity: str | None) -> None:
    h = history(**{"w": ParameterFacts("w", (9, 8), "hidden", feeds_norm, std=0.3)})
    for step in range(0, 260, 10):
        h.losses.add([3.0 if suffers else 3.0 - 0.005 * step] * 10)
        h.add(observation(step, update_to_data__w=change, gradient_std__w=1.0))
    finding = found(h).get("R09")
    assert (finding and finding.severity) == severity


def test_what_starts_at_zero_may_move_far() -> None:
    h = history(**{"w": ParameterFacts("w", (9, 8), "hidden", std=0.0, zero=True)})
    for step in range(0, 110, 10):
        h.add(observation(step, update_to_data__w=-0.5, gradient_std__w=1.0))
    assert found(h) == {}


@pytest.mark.parametrize(("losses", "rules"), [([2.3] * 450, {"R13"}), ([2.3 - 0.003 * i for i in range(450)], set())])
def test_stuck(losses: list[float], rules: set[str]) -> None:
    h = history()
    h.losses.add(losses)
    h.add(Observation(0, {}, {}, Output("cross_entropy", 2.3, 2.3, 0.1, 0.1)))
    h.add(observation(250))
    assert set(found(h)) == rules


@pytest.mark.parametrize(("kind", "expected"), [("cross_entropy", True), ("regression", False)])
def test_chance_after_a_worse_start_is_chance(kind: str, expected: bool) -> None:
    """As a linear model on parity: the loss comes down to that of knowing nothing, and stays."""
    h = history()
    h.losses.add([0.78, 0.78, 0.77, 0.76, *noisy(0.693, 446, 0.002)])
    h.add(Observation(0, {}, {}, Output(kind, 0.693, 0.78, 0.01, 0.1)))
    h.add(observation(250))
    assert ("R13" in found(h)) == expected


def test_a_loss_that_crosses_zero_rises_by_what_it_has_come() -> None:
    """The reference of a likelihood is not known, and its first loss may be close to zero."""
    h = history()
    h.losses.add([0.1, 0.1, 0.1, 0.1, *(0.1 - 0.01 * i for i in range(150)), *noisy(-1.33, 200, 0.05)])
    h.add(observation(350))
    assert "R14" not in found(h)
    h.losses.add([-0.5] * 60)  # it comes back to where it was, no further
    assert "R14" not in found(h)
    h.losses.add([1.5] * 60)
    assert "R14" in found(h)


def test_small_last_batches_are_no_bad_ones() -> None:
    """A loss of chance in a run whose loss is far below it: large beside the others, not beside what is possible."""
    h = history()
    h.add(Observation(0, {}, {}, Output("cross_entropy", 1.1, 0.2, 0.1, 0.1)))
    h.losses.add([1.1 if i % 110 == 100 else 0.15 for i in range(400)])
    h.add(observation(300))
    assert "R07" not in found(h)


def test_diverging_and_noise() -> None:
    rises = history()
    rises.losses.add([1.0] * 100 + [1 + 0.05 * i for i in range(100)])
    rises.add(observation(200))
    assert "R14" in found(rises)
    small = history()
    small.losses.add([2.0 * 0.95**i for i in range(100)] + [0.02, 0.03] * 60)
    small.add(observation(200))
    assert "R14" not in found(small)


def test_three_bad_batches() -> None:
    for bad, expected in ((2, False), (3, True)):
        h = history()
        for i in range(300):
            h.losses.add([20.0 if i % 90 == 50 and i // 90 < bad else 1.0])
        h.add(observation(300))
        assert ("R07" in found(h)) == expected


@pytest.mark.parametrize(("error", "expected"), [(0.1, True), (1.0, False), (math.nan, False)])
def test_single_examples_may_stand_out_in_batches_of_few(error: float, expected: bool) -> None:
    h = history()
    h.add(Observation(0, {}, {}, Output("cross_entropy", 1.4, 1.4, error, 0.5)))
    h.losses.add([5.0 if i % 60 == 50 else 0.4 for i in range(300)])
    h.add(observation(300))
    assert ("R07" in found(h)) == expected


def test_a_finding_becomes_more_severe_but_keeps_its_step() -> None:
    h, diagnosis = history(), Diagnosis()
    for step in range(0, 200, 10):
        h.add(observation(step, saturation__a=0.6))
    assert [f.severity for f in diagnosis.update(h)] == ["warning"]
    first = diagnosis.findings[0].step
    for step in range(200, 500, 10):
        h.add(observation(step, saturation__a=0.95))
    assert [f.severity for f in diagnosis.update(h)] == ["critical"]
    assert diagnosis.findings[0].step == first
    assert diagnosis.update(h) == []


def noisy(mean: float, n: int, std: float = 1.0, seed: int = 0) -> list[float]:
    draw = random.Random(seed)
    return [draw.gauss(mean, std) for _ in range(n)]


@pytest.mark.parametrize(
    ("norms", "expected"),
    [
        ([10.0, 9.0, 8.0, *[0.1] * 17], False),  # vanishes with the loss: the first ones are no spikes
        ([*[1.0] * 5, 50.0, 1.0, 1.0, 50.0, 1.0, 1.0, 50.0, *[1.0] * 5], True),
        ([*[1.0] * 5, 50.0, 1.0, 1.0, 50.0, *[1.0] * 5], False),
    ],
)
def test_gradient_spikes(norms: list[float], expected: bool) -> None:
    h = history(total=200)
    for step, norm in enumerate(norms):
        h.add(observation(10 * step, gradient_norm__total=norm))
    severities = [f.severity for rule, f in found(h).items() if rule == "R07"]
    assert severities == (["note"] if expected else [])
    h.losses.add([2.0 + 0.001 * (i % 2) for i in range(120)])  # now it shows that the network learns nothing
    severities = [f.severity for rule, f in found(h).items() if rule == "R07"]
    assert severities == (["warning"] if expected else [])


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ((2.0, 2.3, 2.5), True),
        ((2.0, 1.9, 1.8), False),
        ((0.0002, 0.001, 0.0012), False),
        ((1.0, 0.8, 0.9, 1.0, 1.1, 1.2), True),
        ((1.0, 0.8, 1.1, 0.82, 1.2), False),  # jumps
        ((1.0, 0.8, 1.1, 0.9, 1.3, 0.95, 1.2), False),  # jumps by more than it stays above its best
    ],
)
def test_overfitting(losses: tuple[float, ...], expected: bool) -> None:
    h = history()
    h.add(Observation(0, {}, {}, Output("cross_entropy", 2.3, 2.3, 0.1, 0.1)))
    h.validations += [(loss, 0.4 * min(losses)) for loss in losses]
    assert ("R15" in found(h)) == expected


@pytest.mark.parametrize(
    ("momentum", "steps", "log_variance", "expected"),
    [
        (0.001, [600], 0.4, "warning"),  # 55 % of the start is left, and 61 % is at half of the run
        (0.001, [600], 0.2, None),
        (0.1, [20], 2.0, None),  # 12 % is left: the start of any run
        (0.1, [60], 2.0, None),
        (0.1, [60, 120, 180], 2.0, "warning"),
        (0.1, [60, 120, 180], 1.0, "warning"),
        (0.1, [60, 120, 180], 0.8, None),
        (0.1, [900, 950, 1000], 0.8, "note"),
        (0.1, [900, 950, 1000], 0.5, None),
        (0.0, [60], 0.4, "warning"),  # never updated
        (None, [60], 0.4, None),  # a cumulative average
        (0.1, [2, 4, 6], 2.0, None),
    ],
)
def test_statistics_that_differ(
    momentum: float | None, steps: list[int], log_variance: float, expected: str | None
) -> None:
    h = history()
    h.add(observation(0))
    h.gaps += [StatisticsGap("norm", log_variance, 0.0, momentum, step) for step in steps]
    finding = found(h).get("R17")
    assert (finding and finding.severity) == expected


def test_large_updates_wait_for_the_loss() -> None:
    for steps, expected in ((150, "note"), (260, "warning")):
        h = history(**{"w": ParameterFacts("w", (9, 8), "hidden", std=0.3)})
        for step in range(0, steps, 10):
            h.losses.add([3.0] * 10)
            h.add(observation(step, update_to_data__w=-1.7, gradient_std__w=1.0))
        assert found(h)["R09"].severity == expected


@pytest.mark.parametrize(("update", "of", "expected"), [(-1.7, 5, False), (-1.7, 4, True), (-1.4, 5, True)])
def test_one_of_many_weights_a_little_above_the_limit(update: float, of: int, expected: bool) -> None:
    parameters = {f"w{i}": ParameterFacts(f"w{i}", (9, 8), "hidden", std=0.3) for i in range(of)}
    h = history(**parameters)
    for step in range(0, 300, 10):
        h.losses.add([3.0] * 10)
        updates = dict.fromkeys(parameters, -2.5) | {"w0": update}
        h.add(Observation(step, {"update_to_data": updates, "gradient_std": dict.fromkeys(parameters, 1.0)}, {}))
    assert ("R09" in found(h)) == expected


@pytest.mark.parametrize(
    ("before", "frozen", "expected"), [(0.0, False, True), (0.0, True, False), (1e-3, False, False)]
)
def test_a_zero_matrix_in_the_middle(before: float, frozen: bool, expected: bool) -> None:
    parameters = {
        "a": ParameterFacts("a", (9, 8), "hidden", std=0.3),
        "b": ParameterFacts("b", (7, 9), "hidden", std=0.0, zero=True),
        "c": ParameterFacts("c", (5, 7), "output", std=0.3),
    }
    h = History(Facts(parameters, weight_of={"tanh_a": "a", "tanh_b": "b"}, frozen=frozen))
    h.add(observation(0, gradient_std__a=before, gradient_std__b=0.1, gradient_std__c=0.2))
    assert ("R20" in found(h)) == expected


@pytest.mark.parametrize(("std", "expected"), [(0.0, True), (0.6, False)])
def test_a_zero_matrix_before_an_activation_that_is_called(std: float, expected: bool) -> None:
    """No module tells that it feeds one; what the activations put out does."""
    parameters = {
        "a": ParameterFacts("a", (9, 8), "hidden", std=0.3),
        "b": ParameterFacts("b", (7, 9), "hidden", std=0.0, zero=True),
    }
    h = History(Facts(parameters))
    h.add(observation(0, gradient_std__a=0.0, gradient_std__b=0.1, activation_std__a=0.6, activation_std__b=std))
    assert ("R20" in found(h)) == expected


@pytest.mark.parametrize(
    ("log_variance", "steps", "expected"),
    [(4.0, [600], True), (4.0, [400], False), (2.0, [600], False), (57.0, [600], True)],
)
def test_statistics_that_have_nothing_to_do_with_the_data(
    log_variance: float, steps: list[int], expected: bool
) -> None:
    """A single validation in the second half of the run is enough for that."""
    h = history()
    h.add(observation(0))
    h.gaps += [StatisticsGap("norm", log_variance, 0.0, 0.1, step) for step in steps]
    finding = found(h).get("R17")
    assert (finding is not None) == expected
    assert finding is None or ("factor of more than 1000" in finding.message) == (log_variance == 57.0)


@pytest.mark.parametrize(("kind", "severity"), [("relu", "critical"), ("gelu", "note")])
def test_how_much_a_layer_keeps_depends_on_its_activation(kind: str, severity: str) -> None:
    """A third of it: torch's default init keeps 0.41 per ReLU layer, and 0.29 per GELU layer."""
    h = history()
    stds = {f"layer{i}": 0.3**i for i in range(6)}
    h.add(Observation(0, {"activation_std": stds}, dict.fromkeys(stds, kind)))
    assert found(h)["R05"].severity == severity


@pytest.mark.parametrize(
    ("fresh", "ratio", "severity"), [(True, 2e-3, "note"), (False, 2e-3, "critical"), (True, 7e-4, "critical")]
)
def test_the_gradient_of_torchs_own_init(fresh: bool, ratio: float, severity: str) -> None:
    """Poolings take their share of it, too."""
    names = [f"layer{i}" for i in range(6)]
    h = History(Facts({"w": ParameterFacts("w", (9, 100), "hidden", std=0.06, fresh=fresh)}), 1000)
    stds = {n: ratio ** (1 - i / 5) for i, n in enumerate(names)}
    h.add(Observation(0, {"activation_gradient_std": stds}, dict.fromkeys(names, "relu")))
    assert found(h)["R06"].severity == severity


@pytest.mark.parametrize(
    ("layers", "ratio", "severity"),
    [
        (6, 0.0095, "note"),  # torch's default init: 0.4 per layer
        (4, 0.0095, "critical"),
        (4, 0.02, "note"),
        (12, 5e-5, "critical"),
        (4, 150.0, "critical"),
    ],
)
def test_the_gradient_at_the_start(layers: int, ratio: float, severity: str) -> None:
    h = history()
    names = [f"layer{i}" for i in range(layers)]
    stds = {n: ratio ** (1 - i / (layers - 1)) for i, n in enumerate(names)}
    h.add(Observation(0, {"activation_gradient_std": stds}, dict.fromkeys(names, "relu")))
    assert found(h)["R06"].severity == severity


def test_what_a_high_rate_froze() -> None:
    diagnosis = Diagnosis()
    frozen, fast = (Finding(r, "critical", "w", s, 1.0, 1.0, "", "") for r, s in (("R12", 200), ("R09", 120)))
    diagnosis.restore([frozen, fast])
    assert [(f.rule, f.caused_by) for f in diagnosis.findings] == [("R09", None), ("R12", "R09")]
    diagnosis.restore([dataclasses.replace(frozen, step=20), fast])
    assert all(f.caused_by is None for f in diagnosis.findings)


@pytest.mark.parametrize(
    ("share", "end", "severity"), [(0.6, 2.0, "warning"), (0.6, 0.5, "note"), (0.9, 0.5, "critical")]
)
def test_dead_units_of_a_network_that_learns(share: float, end: float, severity: str) -> None:
    h = history()
    h.losses.add([2.3] * 10 + [end] * 100)
    for step in range(0, 110, 10):
        h.add(observation(step, dead_units__b=0.0 if step == 0 else share))
    assert found(h)["R04"].severity == severity


@pytest.mark.parametrize(("end", "noise", "expected"), [(-0.06, 0.005, False), (0.3, 0.2, False), (0.3, 0.03, True)])
def test_a_loss_below_zero_that_strays(end: float, noise: float, expected: bool) -> None:
    """As the estimate that a policy's gradient is taken of: it ends at zero where nothing is left to gain."""
    h = history()
    h.losses.add([-0.03] * 4 + noisy(-0.14, 100, noise) + noisy(end, 100, noise))
    h.add(observation(200))
    assert ("R14" in found(h)) == expected


@pytest.mark.parametrize(("repeats", "train", "expected"), [(True, 0.5, True), (False, 0.5, False), (False, 0.2, True)])
def test_what_was_never_seen_twice_is_not_overfitted(repeats: bool, train: float, expected: bool) -> None:
    """Unless it costs far less than the validation does: examples may come back within an epoch."""
    h = history()
    h.repeats = repeats
    h.losses.add([train] * 50)
    h.add(observation(50))
    h.validations += [(0.6, 1.1 * train), (0.7, 1.05 * train), (0.75, train), (0.8, train)]
    finding = found(h).get("R15")
    assert (finding is not None) == expected
    assert finding is None or ("within the epoch" in finding.suggestion) != repeats


@pytest.mark.parametrize("repeats", [True, False])
def test_what_is_of_no_use_in_a_first_epoch(repeats: bool) -> None:
    """The validation loss is at chance, and the training loss below half of it, but no example may have come back."""
    h = history()
    h.repeats = repeats
    h.losses.add([2.3] * 10 + [1.2] * 40)
    h.add(Observation(0, {}, {}, Output("cross_entropy", 2.3, 2.3, 0.01, 0.1)))
    h.validations += [(2.45, 1.3), (2.46, 1.25), (2.47, 1.2), (2.48, 1.2)]
    assert ("R15" in found(h)) == repeats


@pytest.mark.parametrize(
    ("shares", "left", "expected"),
    [
        ([1.0] * 20 + [0.01] * 30, 1.2, True),
        ([1.0] * 20 + [0.01] * 30, 0.5, False),  # little is left to learn
        ([1.0] * 20 + [0.01] * 10, 1.2, False),  # it may be a cycle
        ([1.0] * 20 + [0.05] * 30, 1.2, False),
        ([1.0] * 60 + [0.01] * 35, 1.2, False),  # in the second half of the run
        ([0.01] * 30, 1.2, False),  # a warm-up
    ],
)
def test_a_schedule_that_ends_early(shares: list[float], left: float, expected: bool) -> None:
    h = history(w=ParameterFacts("w", (9, 8), "hidden", std=0.3))
    for index, share in enumerate(shares):
        h.losses.add([2.3 if index == 0 else left] * 10)
        update = {"update_to_data": {"w": -3.0 + math.log10(share)}, "gradient_std": {"w": 1.0}}
        h.add(Observation(10 * index, update, {}, Output("cross_entropy", 2.3, 2.3, 0.01, 0.1), share))
    finding = found(h).get("R10")
    assert (finding is not None) == expected
    assert finding is None or "schedule" in finding.suggestion


@pytest.mark.parametrize(
    ("zero", "constant", "squared", "severity"),
    [
        (150.0, 1.0, True, "critical"),
        (50.0, 1.0, True, "warning"),
        (12.0, 1.0, True, "note"),
        (5.0, 1.0, True, None),
        (0.2, 0.002, True, "note"),
        (5.0, 1.0, False, "warning"),
        (2.0, 1.0, False, None),
    ],
)
def test_targets_far_from_zero_beside_their_spread(
    zero: float, constant: float, squared: bool, severity: str | None
) -> None:
    h = history()
    for step in (0, 10):
        h.add(Observation(step, {}, {}, Output("regression", zero, zero, 1e-3, math.nan, constant, squared=squared)))
    finding = found(h).get("R01")
    assert (finding and finding.severity) == severity


@pytest.mark.parametrize(("last", "severity"), [(7.0, "warning"), (0.5, "note")])
def test_targets_that_are_a_little_far_from_zero_and_never_reached(last: float, severity: str) -> None:
    h, diagnosis = history(), Diagnosis()
    told: list[Finding] = []
    for step in range(0, 1000, 10):
        loss = 10.5 + (last - 10.5) * step / 1000
        h.losses.add([loss] * 10)
        h.add(Observation(step, {}, {}, Output("regression", 10.5, loss, 1e-3, math.nan, 1.0)))
        told += diagnosis.update(h)
    assert next(f.severity for f in diagnosis.findings if f.rule == "R01") == severity
    assert [f.severity for f in told if f.rule == "R01"] == ["note", *["warning"] * (severity == "warning")]


def test_targets_that_lie_close_together_in_one_batch() -> None:
    """Two of them, by chance; those of the next batch do not."""
    h = history()
    h.add(Observation(0, {}, {}, Output("regression", 1.0, 1.0, 0.1, math.nan, 0.005)))
    assert found(h)["R01"].severity == "warning"
    h.add(Observation(10, {}, {}, Output("regression", 1.0, 1.0, 0.1, math.nan, 1.0)))
    assert "R01" not in found(h)


@pytest.mark.parametrize(("last", "severity"), [(0.1, "note"), (0.3, "warning"), (20.0, "warning")])
def test_targets_that_were_far_from_zero_and_are_followed(last: float, severity: str) -> None:
    h = history()
    diagnosis = Diagnosis()
    for step in range(0, 300, 10):
        loss = 50.0 if step < 50 else last
        h.losses.add([loss] * 10)
        h.add(Observation(step, {}, {}, Output("regression", 50.0, loss, 1e-3, math.nan, 1.0)))
        diagnosis.update(h)
    assert next(f.severity for f in diagnosis.findings if f.rule == "R01") == severity


def test_small_steps_that_are_a_consequence_ask_for_no_higher_rate() -> None:
    h = history(w=ParameterFacts("w", (9, 8), "hidden", std=0.3))
    for step in range(0, 300, 10):
        h.losses.add([2.3] * 10)
        h.add(observation(step, update_to_data__w=-6.0, gradient_std__w=1.0, saturation__a=0.99 if step else 0.95))
    finding = found(h)["R10"]
    assert finding.caused_by == "R03"
    assert finding.suggestion == "Mend R03 saturated_activation first."


def test_a_certain_cause_of_a_standstill_comes_first() -> None:
    h = history()
    for step in range(0, 450, 10):
        h.losses.add([1.0] * 10)
        gradients = {"activation_gradient_std": {"a": 1e-4, "b": 1e-2, "c": 1.0}} if step else {}
        output = Output("regression", 1.0, 1.0, 0.01, math.nan, 1.0, broadcast=True)
        h.add(Observation(step, gradients, dict.fromkeys("abc", "relu"), output))
    diagnosis = Diagnosis()
    diagnosis.update(h)
    assert [(finding.rule, finding.caused_by) for finding in diagnosis.findings] == [("R13", None), ("R06", "R13")]


@pytest.mark.parametrize(("validation", "expected"), [(0.69, True), (0.16, False)])
def test_statistics_that_are_off_and_cost_much(validation: float, expected: bool) -> None:
    """As of inputs that validation prepares in another way, by less than what single batches differ by."""
    h = history()
    h.losses.add([2.3] * 20 + [0.15] * 380)
    h.add(Observation(0, {}, {}, Output("cross_entropy", 2.3, 2.3, 0.01, 0.1)))
    h.validations += [(validation, 0.15)] * 3
    h.gaps += [
        StatisticsGap("norm", log_variance, 0.45, 0.1, step)
        for log_variance, step in ((0.8, 200), (0.7, 300), (0.65, 400))
    ]
    assert ("R17" in found(h)) == expected
