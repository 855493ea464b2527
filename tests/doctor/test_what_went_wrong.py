"""Mistakes that are known from facts of the network and its optimizer, and losses that nothing else is known of."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bnlm.doctor import Diagnosis, Facts, Finding, History, Observation, Output, check
from bnlm.doctor.facts import ParameterFacts, facts_of
from bnlm.doctor.loss_rules import ELSE, SIGN
from bnlm.doctor.refusal import refusal
from bnlm.doctor.small_update_rules import MOVES_NOT, SCHEDULES
from bnlm.doctor.spike_rules import BATCHES
from bnlm.doctor.weight_decay import LOWER_DECAY, LOWER_RATE
from bnlm.probe import Heard, StepProbe, Wanted

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
        h.losses.add([loss])
        if step % 10 == 0:
            of_rate = share if step > 20 else 1.0
            h.add(Observation(step, statistics, {}, output, of_rate, decays=decays or []))
        if validations and (step + 1) % (len(losses) // len(validations)) == 0:
            h.validations.append((validations[len(h.validations)], h.losses.recent(50)))
    return h


def classes(loss: float = CHANCE, **more: float) -> Output:
    return Output("cross_entropy", CHANCE, loss, 0.01, 0.3, **more)


WELL = {"update_to_data": {"w": -2.8}, "gradient_std": {"w": 1.0}}


def falling(start: float, end: float, steps: int = 300) -> list[float]:
    return [end + (start - end) * (1 - step / steps) for step in range(steps)]


@pytest.mark.parametrize(
    ("first", "later", "leads"), [(-2.8, -1.3, True), (-0.4, -1.3, False), (-2.8, -0.8, False), (-3.2, -0.8, True)]
)
def test_a_loss_that_goes_the_wrong_way_is_no_matter_of_the_rate(first: float, later: float, leads: bool) -> None:
    """The first steps of a rate that is too high are large; of a sign that is wrong they are as usual."""
    facts = Facts({"w": ParameterFacts("w", (9, 100), "hidden", std=0.1)})
    h = History(facts, 300)
    for step in range(200):
        h.losses.add([CHANCE + 0.05 * step])
        if step % 10 == 0:
            update = first if step == 0 else later
            h.add(Observation(step, {"update_to_data": {"w": update}, "gradient_std": {"w": 1.0}}, {}, classes()))
    findings = found(h)
    assert findings["R14"].suggestion.startswith(SIGN) == leads
    assert (findings["R14"].caused_by, findings["R09"].caused_by) == ((None, "R14") if leads else ("R09", None))


@pytest.mark.parametrize(("start", "known"), [(1.5, 1.2), (9.0, 10.0)])
def test_a_regression_that_starts_at_the_mean_of_its_targets_is_held_against_that(start: float, known: float) -> None:
    h = run([start] * 50, output=Output("regression", 10.0, start, 0.1, math.nan, 1.2))
    assert h.reference.loss == pytest.approx(known)


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


@pytest.mark.parametrize("batch_size", [1, 32])
def test_a_sum_over_larger_batches_is_no_overfitting(batch_size: int) -> None:
    """The validation has eight times as many examples a batch."""
    losses = [batch_size * loss for loss in falling(2.3, 0.6)]
    validations = [8 * batch_size * loss for loss in (1.4, 1.0, 0.7, 0.7, 0.7, 0.7)]
    expected = {1: True, 32: False}[batch_size]
    assert ("R15" in found(run(losses, output=classes(losses[0] / batch_size), validations=validations))) == expected


@pytest.mark.parametrize(("p", "end", "expected"), [(0.97, 2.0, True), (0.97, 0.3, False), (0.5, 2.0, False)])
def test_a_dropout_that_leaves_next_to_nothing(p: float, end: float, expected: bool) -> None:
    h = run(falling(CHANCE, end), output=classes())
    h.dropouts = {"1": p}
    findings = found(h)
    assert (findings.get("R13") is not None and findings["R13"].where == "1") == expected


@pytest.mark.parametrize("functional", [True, False])
def test_a_dropout_is_heard_of_wherever_it_is_called(functional: bool) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.drop, self.last = nn.Linear(9, 30), nn.Dropout(0.96), nn.Linear(30, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = F.dropout(x, 0.99, training=False)
            x = torch.tanh(self.first(x))
            return self.last(F.dropout(x, p=0.96) if functional else self.drop(x))

    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    probe = StepProbe(net, [optimizer], Wanted(activations=True, losses=True))
    probe.attach()
    F.cross_entropy(net(torch.randn(8, 9)), torch.randint(10, (8,))).backward()
    optimizer.step()
    probe.end()
    assert probe.record().heard.dropouts == {"dropout" if functional else "drop": 0.96}


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
    facts = Facts({"w": ParameterFacts("w", (9, 100), "hidden", std=0.1, group=0)}, weight_decay=1.0)
    findings = found(run([CHANCE - 0.001 * (step % 2) for step in range(400)], facts, classes(), decays=[decay]))
    finding = findings.get("R09")
    assert (finding is not None and finding.suggestion.startswith(LOWER_DECAY)) == expected
    assert findings["R13"].caused_by == ("R09" if expected else None)


@pytest.mark.parametrize(("weight_decay", "end", "expected"), [(1.0, 1.8, True), (1e-3, 1.8, False), (1.0, 0.1, False)])
def test_decay_that_adam_makes_as_large_as_a_gradient(weight_decay: float, end: float, expected: bool) -> None:
    facts = Facts({"w": ParameterFacts("w", (9, 100), "hidden", std=0.1)}, decay_rescaled=True)
    facts.weight_decay = weight_decay
    findings = found(run(falling(CHANCE, end), facts, classes(), update=-2.0))
    assert ("R09" in findings and "AdamW" in findings["R09"].suggestion) == expected


@pytest.mark.parametrize(("end", "share", "expected"), [(1.2, 0.01, True), (0.3, 0.01, False), (0.3, 1e-6, True)])
def test_a_schedule_that_ends_at_once_where_no_reference_is_known(end: float, share: float, expected: bool) -> None:
    """Whatever was learned in a few steps: at a rate of nothing it is all."""
    losses = [1.7] * 10 + [end] * 290
    assert ("R10" in found(run(losses, share=share))) == expected


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
        h.losses.add([float(loss.detach())])
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
        h.losses.add([of_classes + 2])
        if step % 10 == 0:
            h.add(Observation(step, {}, {}, classes(of_classes) if h.reference.wants_more else None))
    assert ("R13" in found(h)) == expected


@pytest.mark.parametrize(("sign", "expected"), [(-1.0, True), (1.0, False)])
def test_minus_what_the_loss_function_returns(sign: float, expected: bool) -> None:
    finding = found(run([sign * (CHANCE + 0.05 * step * (sign < 0)) for step in range(40)], output=classes())).get(
        "R14"
    )
    assert (finding is not None and finding.suggestion.startswith(SIGN)) == expected


@pytest.mark.parametrize(("first", "expected"), [(-CHANCE - 0.7, True), (-0.7, False), (CHANCE + 0.7, False)])
def test_minus_what_several_loss_functions_return(first: float, expected: bool) -> None:
    others = [Output("binary_cross_entropy", math.log(2), 0.7, 0.01, math.nan)]
    h = History(Facts(), 300)
    for step in range(40):
        h.losses.add([first * (1 + 0.02 * step)])
        h.add(Observation(step, {}, {}, classes(), others=others))
    finding = found(h).get("R14")
    assert (finding is not None and finding.suggestion.startswith(SIGN)) == expected


@pytest.mark.parametrize(("end", "expected"), [(0.01, False), (3.0, True)])
def test_an_estimate_that_crosses_zero(end: float, expected: bool) -> None:
    """A policy's gradient is taken of what goes below zero and comes back; of no scale is known."""
    losses = [*falling(-0.05, -0.15, 150), *falling(-0.15, end, 150), *[end] * 100]
    assert ("R14" in found(run(losses))) == expected


@pytest.mark.parametrize(
    ("end", "validations", "expected"),
    [
        (-600.0, (5.0, 60.0, 300.0, 600.0), ["R14"]),  # the one is minus the other
        (-3.0, (-0.5, -1.0, -1.5, -2.0), []),  # a density
        (-3.0, (-0.5, 0.5, 1.0, 1.5), ["R15"]),  # a density known by heart, once worse than nothing elsewhere
    ],
)
def test_minus_the_validation_loss(end: float, validations: Sequence[float], expected: list[str]) -> None:
    findings = found(run(falling(-1.0, end), validations=validations))
    assert [rule for rule in findings if rule in ("R14", "R15")] == expected


def test_the_reference_of_a_sum_over_many_places_is_a_sum_too() -> None:
    """Pictures of 24 points of 0 or 1: what their frequencies cost is for all of them."""
    output = Output("binary_cross_entropy", math.log(2), math.log(2), 0.01, math.nan, counts=[*[250.0] * 24, 500.0])
    h = run(falling(24 * math.log(2), 8.0), output=output)
    assert h.reference.of_frequencies == pytest.approx(24 * math.log(2), rel=0.01)
    assert "R13" not in found(h)


@pytest.mark.parametrize(("start", "end", "frozen"), [(1.0, 0.0, False), (1.0, 1.0, True)])
def test_a_loss_of_zero_has_no_gradient(start: float, end: float, frozen: bool) -> None:
    """Triplets that are all far apart have nothing to teach."""
    h = History(Facts({"w": ParameterFacts("w", (9, 9), "hidden", std=0.1)}), 400)
    for step in range(300):
        loss = start if step < 20 else end
        h.losses.add([loss])
        if step % 10 == 0:
            h.add(Observation(step, {"gradient_std": {"w": 1.0 if step < 60 else 0.0}}, {}, None))
    assert ("R12" in found(h)) == frozen


@pytest.mark.parametrize(("known", "expected"), [(True, True), (False, False)])
def test_a_loss_that_nothing_is_known_of_may_rise_further(known: bool, expected: bool) -> None:
    output = Output("cross_entropy", 1.3, 1.3, 0.01, 0.3) if known else None
    losses = [*falling(1.3, 0.26, 60), *[0.26] * 40, *[0.6] * 100]
    assert ("R14" in found(run(losses, output=output))) == expected


def test_heads_beside_each_other_are_all_outputs() -> None:
    class Mixture(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(3, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh())
            self.pi, self.mu, self.sigma = (nn.Linear(32, 5) for _ in range(3))
            self.loss = nn.MSELoss()

    roles = {name: one.role for name, one in facts_of(Mixture()).parameters.items() if one.role != "vector"}
    hidden = dict.fromkeys(("body.0.weight", "body.2.weight"), "hidden")
    assert roles == hidden | dict.fromkeys(("pi.weight", "mu.weight", "sigma.weight"), "output")


def test_what_attends_is_no_head() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(16, 16) for _ in range(3))
            self.head = nn.Linear(16, 4)

    roles = [one.role for one in facts_of(Attention()).parameters.values() if one.role != "vector"]
    assert roles == ["hidden", "hidden", "hidden", "output"]


@pytest.mark.parametrize("trained", [False, True])
def test_weights_that_are_frozen_as_they_were_drawn(trained: bool) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
    if trained:
        net[0].weight.data += 0.1 * torch.randn(32, 16)
    net[0].requires_grad_(False)
    findings = check(net, (torch.randn(64, 16), torch.randint(4, (64,))), F.cross_entropy, table=False)
    assert [f.severity for f in findings if f.rule == "R12"] == ([] if trained else ["note"])


@pytest.mark.parametrize(
    ("end", "width", "adapter", "severity"),
    [
        (CHANCE, 4, False, "critical"),
        (1.5, 4, False, "warning"),
        (0.5, 4, False, "note"),  # random features may do
        (1.5, 64, False, "note"),  # they are few
        (1.5, 4, True, "note"),
    ],
)
def test_most_of_a_network_is_frozen_by_accident(end: float, width: int, adapter: bool, severity: str) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, width))
    net[0].requires_grad_(False)
    if adapter:
        net.append(nn.Linear(width, width, bias=False))
        nn.init.zeros_(net[3].weight)
    diagnosis, h = Diagnosis(), History(facts_of(net), 450)
    for step, loss in enumerate(falling(CHANCE, end, 450)):
        h.losses.add([loss])
        if step % 10 == 0:
            gradients = dict.fromkeys(h.facts.parameters, 1.0)
            h.add(Observation(step, {"gradient_std": gradients}, {}, classes()))
            diagnosis.update(h)
    findings = {finding.rule: finding for finding in diagnosis.findings}
    assert (findings["R12"].severity, findings["R12"].step) == (severity, 0)
    if severity == "critical":
        assert findings["R13"].caused_by == "R12"


def test_a_frozen_copy_of_what_is_trained() -> None:
    """As the target network of a policy or of a contrast."""
    net = nn.Sequential(nn.Linear(16, 32), nn.Linear(32, 4))
    both = nn.ModuleDict({"net": net, "target": copy.deepcopy(net).requires_grad_(False)})
    facts = facts_of(both)
    assert facts.fresh == []
    assert facts.fresh_share == 0.0


@pytest.mark.parametrize(("few", "expected"), [(16, False), (256, True)])
def test_points_on_the_boundary_beside_those_within(few: int, expected: bool) -> None:
    """The same network is called twice; where its second call has few points their flat outputs are of no weight."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(1, 64), nn.Tanh(), nn.Linear(64, 1))
    net[0].weight.data.fill_(1.0)

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([self.net(x), self.net(torch.full((few, 1), 9.0))])

    def mean_square(y: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(y, torch.ones_like(y))

    findings = check(Twice(), (torch.randn(256, 1), torch.ones(256, 1)), mean_square, table=False)
    assert ("R03" in [f.rule for f in findings]) == expected


@pytest.mark.parametrize(("factor", "expected"), [(25.0, True), (1.0, False)])
def test_recurrent_weights_that_start_far_too_large(factor: float, expected: bool) -> None:
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.GRU(8, 32, batch_first=True), nn.Linear(32, 4)
            self.rnn.weight_hh_l0.data *= factor

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.rnn(x)[0][:, -1])

    torch.manual_seed(0)
    findings = check(Reader(), (torch.randn(64, 6, 8), torch.randint(4, (64,))), F.cross_entropy, table=False)
    assert ("R05" in [f.rule for f in findings]) == expected


@pytest.mark.parametrize(("scale", "end", "expected"), [(200.0, 0.8, True), (200.0, 0.2, False), (1.0, 0.9, False)])
def test_targets_that_are_far_larger_than_what_a_network_begins_with(scale: float, end: float, expected: bool) -> None:
    h = History(Facts(), 300)
    for step, loss in enumerate(falling(scale, end * scale, 300)):
        h.losses.add([loss])
        if step % 10 == 0:
            h.add(Observation(step, {}, {}, Output("regression", scale, loss, 0.1, math.nan, scale)))
    assert ("R13" in found(h)) == expected


@pytest.mark.parametrize(("update", "expected"), [(-3.8, True), (-2.8, False)])
def test_slow_progress_of_a_loss_that_nothing_is_known_of(update: float, expected: bool) -> None:
    assert ("R10" in found(run(falling(1.2, 0.57), update=update))) == expected


def test_losses_of_nothing_divide_nothing() -> None:
    h = run([0.0] * 300, share=1e-6, validations=[0.0] * 4)
    assert [rule for rule in found(h) if rule in ("R14", "R15")] == []


def test_small_weights_are_not_judged_by_how_they_were_drawn() -> None:
    assert facts_of(nn.Linear(8, 2).requires_grad_(False)).fresh == []


@pytest.mark.parametrize(("then", "single"), [(0.3, True), (6.0, False)])
def test_spikes_about_a_level_that_has_leaped_are_not_of_single_batches(then: float, single: bool) -> None:
    losses = [0.3] * 100 + [then * (150 if step in (25, 47, 76, 100, 131, 155, 174) else 1) for step in range(1, 200)]
    finding = found(run([CHANCE, CHANCE, *losses], output=classes()))["R07"]
    assert finding.suggestion.startswith(BATCHES) == single


@pytest.mark.parametrize(
    ("onset", "single"),
    [
        (
            [30.0, 0.5],
            True,
        ),  # out of nothing, and over at the next step; what it has done to the weights comes after it
        ([8.0, 6.0], False),  # a step that went too far
        ([12.0, 60.0], True),  # no step goes that far
        ([1.5, 7.0, 30.0, 0.5], False),  # steps that do
    ],
)
def test_a_batch_after_which_the_loss_rises(onset: list[float], single: bool) -> None:
    rises = [min(40.0, 0.6 * 1.2**step) for step in range(60)]
    losses = [*falling(CHANCE, 0.3, 100), *[0.3] * 20, *onset, *rises, *[40.0, 200.0] * 40]
    findings = found(run(losses, output=classes()))
    assert findings["R07"].suggestion.startswith(BATCHES) == single
    assert (findings["R14"].caused_by == "R07") == single
    assert ("at once, with step 121" in findings["R07"].message) == single


@pytest.mark.parametrize(("end", "expected"), [(0.05, True), (0.25, False)])
def test_a_validation_loss_that_rises_with_the_training_loss(end: float, expected: bool) -> None:
    losses = [*falling(CHANCE, 0.1, 200), *[0.1] * 50, *[end] * 150]
    findings = found(run(losses, output=classes(), validations=(1.0, 0.9, 0.8, 0.5, 0.3, 0.12, 0.5, 0.5, 0.5, 0.5)))
    assert ("R15" in findings) == expected


@pytest.mark.parametrize(("best", "rise", "expected"), [(2.0, 0.5, "warning"), (0.2, 0.25, "note"), (0.1, 0.1, None)])
def test_updates_beside_a_loss_that_moves_a_little(best: float, rise: float, expected: str | None) -> None:
    """Half a rise counts against the size of the steps while most is to be learned, not afterwards."""
    losses = [*falling(CHANCE + 0.5, best, 150), *[best] * 60, *[best + rise] * 30]
    finding = found(run(losses, output=classes(), update=-1.6)).get("R09")
    assert (finding and finding.severity) == expected


@pytest.mark.parametrize("output", [None, classes()])
@pytest.mark.parametrize(("end", "expected"), [(-689.0, True), (-40.0, False)])
def test_a_loss_without_a_floor(output: Output | None, end: float, expected: bool) -> None:
    """Minus a cost of which nothing is known, or that a loss function goes into; and the likelihood of a density."""
    finding = found(run([-0.98 + end * (step / 300) ** 2 for step in range(300)], output=output)).get("R14")
    assert (finding is not None and finding.suggestion.startswith(SIGN)) == expected


def test_minus_a_loss_that_is_written_out() -> None:
    h = History(Facts(), 300)
    for step in range(40):
        h.losses.add([-1.0 - 0.05 * step])
        h.add(Observation(step, {}, {}, Output("regression", 1.0, 1.0, 0.1, math.nan, 1.0, scales=(1.0, 32.0))))
    assert found(h)["R14"].suggestion.startswith(SIGN)


@pytest.mark.parametrize(
    ("before", "starts"), [(falling(2.3, 2.0, 60), "Nothing had grown"), ([2.3, 9.0, 60.0], "Lower")]
)
def test_a_nan_out_of_the_blue_is_in_the_data(before: list[float], starts: str) -> None:
    h = History(Facts(), 300)
    h.losses.add([*before, math.nan])
    h.add(Observation(len(before), {"gradient_norm": {"total": 1.0}}, {}))
    assert found(h)["R08"].suggestion.startswith(starts)


@pytest.mark.parametrize(("low", "expected"), [(1e-8, True), (1e-6, False)])
def test_a_group_whose_rate_is_next_to_nothing(low: float, expected: bool) -> None:
    """The output layer learns, and the loss falls; nobody fine-tunes by a rate that is so much smaller."""
    facts = {
        "body": ParameterFacts("body", (9, 100), "hidden", std=0.1, group=0, lr=low),
        "head": ParameterFacts("head", (4, 9), "output", std=0.1, group=1, lr=1e-3),
    }
    finding = found(run(falling(2.0, 1.0), Facts(facts), None, update=-3.0)).get("R10")
    assert finding is None  # it moves as others do
    h = History(Facts(facts), 300)
    for step in range(0, 300, 10):
        h.losses.add([2.0 - 0.003 * step] * 10)
        h.add(Observation(step, {"update_to_data": {"body": -8.0, "head": -3.0}, "gradient_std": {"body": 1.0}}, {}))
    finding = found(h).get("R10")
    assert (finding is not None and "group" in finding.message) == expected


@pytest.mark.parametrize(("update", "times"), [(-7.3, "10^4"), (-4.5, "3 to 10")])
def test_how_much_higher_a_rate_has_to_be(update: float, times: str) -> None:
    finding = found(run([CHANCE] * 300, None, classes(), update=update))["R10"]
    assert f"Multiply optimizer.lr by {times};" in finding.suggestion


def test_inputs_of_zero_whatever_the_loss() -> None:
    facts = {
        "0.weight": ParameterFacts("0.weight", (9, 8), "hidden", std=0.3),
        "0.bias": ParameterFacts("0.bias", (9,), "vector", std=0.3),
    }
    h = History(Facts(facts), 400)
    for step in range(0, 200, 10):
        h.losses.add([2.0 - 0.005 * step] * 10)
        h.add(Observation(step, {"gradient_std": {"0.weight": 0.0, "0.bias": 0.1}}, {}))
    finding = found(h)["R13"]
    assert finding.suggestion.startswith("Look at the inputs")
    assert "R12" not in found(h)


@pytest.mark.parametrize(("decay", "expected"), [(0.01, False), (0.5, True)])
def test_a_usual_decay_is_to_blame_for_nothing(decay: float, expected: bool) -> None:
    """It is the rate that makes much of it."""
    facts = Facts({"w": ParameterFacts("w", (9, 100), "hidden", std=0.1, group=0)}, weight_decay=decay, rescales=True)
    finding = found(run([CHANCE] * 450, facts, classes(), decays=[5e-3]))["R13"]
    assert finding.suggestion.startswith(LOWER_DECAY) == expected


@pytest.mark.parametrize(("update", "level", "expected"), [(-4.3, 1.0, True), (-3.7, 1.0, False), (-4.3, 0.3, False)])
def test_small_steps_on_a_loss_of_which_nothing_is_known(update: float, level: float, expected: bool) -> None:
    """The last third brings an eighth of what was learned, or less."""
    losses = [8.0 - 2 * (1 - math.exp(-step / 150 / level)) for step in range(300)]
    assert ("R10" in found(run(losses, update=update))) == expected


@pytest.mark.parametrize(
    ("momentum", "steps", "expected"), [(0.999, 300, True), (0.999, 30_000, False), (0.99, 300, False)]
)
def test_a_momentum_that_outlasts_the_run(momentum: float, steps: int, expected: bool) -> None:
    net = nn.Linear(9, 10)
    facts = facts_of(net, [torch.optim.SGD(net.parameters(), 0.1, momentum=momentum)])
    h = History(facts, steps)
    for step in range(0, 200, 10):
        h.losses.add([CHANCE - 0.005 * step] * 10)
        h.add(Observation(step if steps < 1000 else step + 1000, {}, {}, classes()))
    finding = found(h).get("R09")
    assert (finding is not None and "momentum" in finding.suggestion) == expected


@pytest.mark.parametrize(
    ("times", "end", "drawn", "early", "expected"),
    [
        (7.0, 2.0, 0.1, -1.0, True),
        (3.0, 2.0, 0.1, -1.0, False),
        (7.0, 0.5, 0.1, -1.0, False),
        (7.0, 2.0, 0.001, -1.0, False),
        (7.0, 2.0, 0.1, -2.0, False),  # in the course of many steps
    ],
)
def test_weights_that_have_grown_by_steps_that_were_too_large(
    times: float, end: float, drawn: float, early: float, expected: bool
) -> None:
    """Beside weights so large the steps look small."""
    facts = Facts({"w": ParameterFacts("w", (9, 100), "hidden", std=drawn)})
    h = run(falling(CHANCE, end), facts, classes(), update=early)
    for observation in h.recent:
        observation.statistics["update_to_data"] = {"w": -2.3}
        observation.statistics["data_std"] = {"w": times * drawn}
    finding = found(h).get("R09")
    assert (finding is not None and "as large as they were drawn" in finding.message) == expected


@pytest.mark.parametrize(
    ("losses", "first_step", "expected"),
    [
        ([*(0.7 * 1.02**step for step in range(20)), 1.3, 2.0, 40.0, math.nan], -2.6, True),
        ([*(0.7 * 1.02**step for step in range(20)), 1.3, 2.0, 40.0, math.nan], -0.4, False),
        ([*(0.7 * 1.5**step for step in range(20)), math.nan], -2.6, False),  # leaps at once, as of a rate too high
        ([*(0.7 * 0.97**step for step in range(20)), 1.3, 2.0, 40.0, math.nan], -2.6, False),  # it had fallen
        ([*([0.7, 0.72] * 10), math.nan], -2.6, False),  # out of the blue
    ],
)
def test_the_wrong_sign_of_a_loss_that_soon_is_nan(losses: list[float], first_step: float, expected: bool) -> None:
    h = History(Facts({"w": ParameterFacts("w", (9, 100), "hidden", std=0.1)}), 300)
    for step, loss in enumerate(losses):
        h.losses.add([loss])
        if step % 10 == 0:
            update = {0: first_step, 10: -1.7}.get(step, 0.3)
            h.add(Observation(step, {"update_to_data": {"w": update}, "gradient_std": {"w": 1.0}}, {}))
    findings = found(h)
    assert ("R14" in findings and findings["R14"].suggestion.startswith(SIGN)) == expected
    assert (findings["R08"].caused_by == "R14") == expected


@pytest.mark.parametrize(("sorted_", "told"), [(True, True), (False, False)])
def test_batches_of_one_class(sorted_: bool, told: bool) -> None:
    h = History(Facts({"w": ParameterFacts("w", (9, 100), "hidden", std=0.1)}), 1000)
    for step in range(0, 200, 10):
        counts = [0.0] * 4
        counts[step // 50] = 32.0
        h.losses.add([1.39] * 10 if step < 20 else [0.5] * 10 if step < 60 else [2.5] * 10)
        output = Output("cross_entropy", math.log(4), 1.39, 0.01, 0.3, counts=counts if sorted_ else [8.0] * 4)
        h.add(Observation(step, {"update_to_data": {"w": -2.8}, "gradient_std": {"w": 1.0}}, {}, output))
    assert found(h)["R14"].suggestion.startswith("Shuffle the training data") == told


@pytest.mark.parametrize(
    ("first", "end", "expected"),
    [(0.5, 1.0, True), (0.5, 0.6, False), (0.5, 0.1, False), (2.3, 2.9, False)],
)
def test_what_was_trained_before_and_is_lost(first: float, end: float, expected: bool) -> None:
    """It falls all the time, from where the first steps have brought it to."""
    fell = [first, *falling(4.0, end, 149), *[end] * 150]
    h = run(fell if first < 2 else [first] * 300, output=classes(first), update=-1.6)
    rise = found(h).get("R14")
    assert (rise is not None and "more is lost than learned" in rise.message) == expected
    if expected:
        assert rise is not None
        assert rise.caused_by == "R09"


def test_a_new_output_layer_on_trained_features() -> None:
    """Its logits are as large as the features, which the weights before it do not tell."""
    hidden = [ParameterFacts(f"{i}.weight", (64, 64), "hidden", std=0.18) for i in range(2)]
    advice: list[str] = []

    def severities(new: bool, inputs: float) -> set[str]:
        head = ParameterFacts("2.weight", (4, 64), "output", std=0.07, fresh=new)
        h = History(Facts({one.name: one for one in (*hidden, head)}), 300)
        h.losses.add([2.99])
        statistics = {"preactivation_std": {"act": inputs}}
        h.add(Observation(0, statistics, {"act": "relu"}, Output("cross_entropy", 1.39, 2.99, 0.1, 1.8)))
        of_start = [finding for rule, finding in found(h).items() if rule in ("R01", "R02")]
        advice[:] = [finding.suggestion for finding in of_start]
        return {finding.severity for finding in of_start}

    assert severities(new=True, inputs=1.4) == {"note"}
    assert advice
    assert all(each.startswith("Nothing, where the network was trained before") for each in advice)
    assert severities(new=False, inputs=1.4) == {"warning", "critical"}
    assert severities(new=True, inputs=8.0) == {"warning", "critical"}


@pytest.mark.parametrize(("std", "told"), [(8e-4, True), (1.0, False)])
def test_inputs_that_are_next_to_nothing(std: float, told: bool) -> None:
    h = History(Facts({"0.weight": ParameterFacts("0.weight", (64, 16), "hidden", std=0.14)}), 300)
    for step in range(0, 300, 10):
        h.losses.add([CHANCE] * 10)
        statistics = {"update_to_data": {"0.weight": -2.8}, "gradient_std": {"0.weight": 1.0}}
        h.add(Observation(step, statistics, {}, classes(), heard=Heard(input_std=std)))
    finding = found(h)["R13"]
    assert finding.suggestion.startswith("Look at the inputs: those of the first batch have std 0.0008") == told


@pytest.mark.parametrize(("outliers", "expected"), [(4, False), (10, True)])
def test_single_examples_that_outweigh_a_batch(outliers: int, expected: bool) -> None:
    """Few of the last batches are no better than a constant, though their mean is."""
    h = History(Facts({"w": ParameterFacts("w", (9, 100), "hidden", std=0.1)}), 400)
    for step in range(0, 400, 10):
        h.losses.add([1.3] * 10)
        bad = step >= 400 - 10 * outliers
        output = Output("regression", 1.2, 2.2 if bad else 0.4, 0.1, math.nan, 2.2 if bad else 0.6)
        h.add(Observation(step, {"update_to_data": {"w": -2.8}, "gradient_std": {"w": 1.0}}, {}, output))
    assert ("R13" in found(h)) == expected


@pytest.mark.parametrize(("leap", "leads"), [(1.0, True), (5.0, False)])
def test_a_loss_that_leaps_has_no_wrong_sign(leap: float, leads: bool) -> None:
    losses = [CHANCE] * 15 + [leap * CHANCE] * 2 + [CHANCE + 0.05 * step for step in range(200)]
    rise = found(run(losses, output=classes(), update=-2.8))["R14"]
    assert rise.suggestion.startswith(SIGN) == leads


def test_weights_that_decay_keeps_small() -> None:
    """Each step is large beside them: at rest sqrt(2 x decay) of them."""
    facts = Facts({"w": ParameterFacts("w", (9, 100), "hidden", std=0.1, group=0)}, weight_decay=1.0)
    heavy = found(run([CHANCE] * 300, facts, classes(), update=-1.0, decays=[0.01]))["R09"]
    assert heavy.suggestion.startswith(LOWER_DECAY)
    light = found(run([CHANCE] * 300, facts, classes(), update=-1.0, decays=[1e-4]))["R09"]
    assert not light.suggestion.startswith(LOWER_DECAY)


@pytest.mark.parametrize(
    ("option", "rescales", "change"),
    [(5e-4, False, LOWER_RATE), (0.01, False, LOWER_DECAY), (0.1, True, LOWER_RATE), (0.5, True, LOWER_DECAY)],
)
def test_a_rate_that_makes_much_of_a_usual_decay(option: float, rescales: bool, change: str) -> None:
    facts = {"w": ParameterFacts("w", (9, 100), "hidden", std=0.1, group=0)}
    h = run([CHANCE] * 300, Facts(facts, weight_decay=option, rescales=rescales), classes(), decays=[0.015])
    assert found(h)["R09"].suggestion.startswith(change)


@pytest.mark.parametrize(
    ("rise", "after", "change", "batches"),
    [
        (100.0, [7.0, 8.0], "Look at the schedule of the learning rate: by step 180 it is 100 times", False),
        (2.0, [7.0, 8.0], "Look at what is different from step 177 on", False),
        (2.0, [7.0, 25.0], "Lower optimizer.lr", True),  # it goes on to rise
        (2.0, [90.0, 95.0], "Lower optimizer.lr", True),  # as high as no label makes it
        (2.0, [7.0, 0.1], "Lower optimizer.lr", True),  # it comes back
    ],
)
def test_what_makes_a_loss_leap(rise: float, after: list[float], change: str, batches: bool) -> None:
    """A rate, what is to be learned, or single batches."""
    facts = Facts({"w": ParameterFacts("w", (9, 100), "hidden", std=0.1, group=0)})
    statistics = {"update_to_data": {"w": -2.8}, "gradient_std": {"w": 1.0}}
    h = History(facts, 300)
    for step in range(240):
        h.losses.add([max(CHANCE - 0.1 * step, 0.1 + 0.001 * (step % 3)) if step < 176 else after[step % 2]])
        if step % 10 == 0:
            h.add(Observation(step, statistics, {}, classes(), lr_rise=rise if step == 180 else 1.0))
    findings = found(h)
    assert findings["R14"].suggestion.startswith(change)
    assert findings["R07"].suggestion.startswith(BATCHES) == batches


@pytest.mark.parametrize(("scale", "end", "told"), [(0.03, 0.75, True), (0.03, 0.3, False), (0.6, 0.75, False)])
def test_weights_that_start_small_beside_what_learns(scale: float, end: float, told: bool) -> None:
    """A bias, or another term of the loss, takes it to where it rests."""
    h = History(Facts({"w": ParameterFacts("w", (9, 100), "hidden", std=scale / 10, group=0)}), 400)
    for step in range(0, 300, 10):
        h.losses.add([max(1.0 - 0.01 * (step + i), end) for i in range(10)])
        statistics = {"update_to_data": {"w": -2.8}, "gradient_std": {"w": 1.0}, "activation_std": {"a": 0.03}}
        h.add(Observation(step, statistics, {"a": "tanh"}, Output("regression", 1.0, 1.0, 0.1, math.nan, 1.0)))
    finding = found(h).get("R05")
    assert (finding is not None) == told
    assert finding is None or "rests at 0.75" in finding.message


@pytest.mark.parametrize(("validations", "expected"), [((1.6, 4.0, 6.0, 9.0), True), ((9.9, 2.0, 3.0, 9.0), False)])
def test_a_loss_that_mirrors_a_validation_loss_which_grows(validations: Sequence[float], expected: bool) -> None:
    """What a policy's gradient is taken of is no cost, and may be near minus an error that falls."""
    losses = [-0.1] * 10 + [-(step / 30) for step in range(290)]
    rise = found(run(losses, validations=validations)).get("R14")
    assert (rise is not None and "the validation loss is" in rise.message) == expected


@pytest.mark.parametrize(
    ("hidden", "output", "severity"),
    [
        (-3.0, -0.45, None),  # an output layer follows whatever the labels are
        (-3.0, 0.1, "critical"),
        (-0.9, -0.79, "critical"),  # beyond what is granted to the hidden ones, if not to the output
        (-1.4, -0.79, "warning"),
    ],
)
def test_which_weights_move_too_far(hidden: float, output: float, severity: str | None) -> None:
    weights = {f"{i}.weight": ParameterFacts(f"{i}.weight", (64, 64), "hidden", std=0.1) for i in range(5)}
    head = ParameterFacts("head.weight", (10, 64), "output", std=0.1)
    h = History(Facts({**weights, "head.weight": head}), 300)
    moved = {**dict.fromkeys(weights, hidden), "head.weight": output}
    for step in range(0, 300, 10):
        h.losses.add([CHANCE] * 10)
        first = dict.fromkeys(moved, -3.0)
        statistics = {"update_to_data": moved if step else first, "gradient_std": dict.fromkeys(moved, 1.0)}
        h.add(Observation(step, statistics, {}, classes()))
    finding = found(h).get("R09")
    assert (finding and finding.severity) == severity


@pytest.mark.parametrize(("first", "end", "expected"), [(CHANCE, 1.9, True), (5.0, 4.2, False)])
def test_how_far_a_loss_with_other_terms_has_to_go_is_not_known(first: float, end: float, expected: bool) -> None:
    losses = [*falling(first, end, 200), *[end] * 100]
    assert ("R10" in found(run(losses, output=classes(), update=-3.6))) == expected


@pytest.mark.parametrize(("left", "severity"), [(0.9, "critical"), (0.5, "warning")])
def test_a_schedule_that_ends_at_once(left: float, severity: str) -> None:
    h = run([CHANCE] * 20 + [left * CHANCE] * 280, output=classes(), share=1e-3)
    assert found(h)["R10"].severity == severity


@pytest.mark.parametrize(("first", "severity"), [(0.05, "warning"), (90.0, "note")])
def test_what_the_first_steps_have_raised_is_no_start_to_fall_from(first: float, severity: str) -> None:
    """A loss that is 1 after a peak of 100: far above the 0.05 it began with, or far below."""
    h = run([first, 100.0, 90.0, 80.0, *falling(70.0, 1.0, 100), *[1.0] * 196], update=-0.5)
    diagnosis = Diagnosis()
    diagnosis.restore([Finding("R05", "warning", "w", 40, 0.01, 0.1, "", "")])
    diagnosis.update(h)
    (finding,) = [f for f in diagnosis.findings if f.rule == "R05"]
    assert h.losses.first == pytest.approx(first if first == 0.05 else 90.0)
    assert finding.severity == severity


@pytest.mark.parametrize(
    ("falls", "steps", "severity"), [(True, 90, None), (True, 150, "critical"), (False, 90, "critical")]
)
def test_very_large_updates_wait_while_the_loss_falls(falls: bool, steps: int, severity: str | None) -> None:
    losses = falling(CHANCE, 1.2 if falls else CHANCE, 200)[:steps]
    finding = found(run(losses, output=classes(), update=-0.9)).get("R09")
    assert (finding and finding.severity) == severity


@pytest.mark.parametrize(("share", "moves_not"), [(1.0, True), (1e-9, False)])
def test_a_rate_of_next_to_nothing_is_why_no_weight_moves(share: float, moves_not: bool) -> None:
    finding = found(run([CHANCE] * 300, output=classes(), update=-math.inf, share=share))["R10"]
    assert finding.suggestion.startswith(MOVES_NOT[:20]) == moves_not
    assert finding.suggestion.startswith(SCHEDULES) != moves_not


@pytest.mark.parametrize(
    ("validations", "train", "severity", "by_heart"),
    [
        ((0.455, 0.474, 0.505), 0.012, "warning", True),  # the first was the best
        ((0.9, 0.474, 0.505), 0.012, "note", True),
        ((0.455, 0.474, 0.505), 0.1, None, False),
        ((13.0, 13.1, 13.3), 1.2, "warning", False),  # no better than chance, and little is learned
    ],
)
def test_three_validations_of_what_is_known_by_heart(
    validations: tuple[float, ...], train: float, severity: str | None, by_heart: bool
) -> None:
    h = run([*falling(CHANCE, train, 100), *[train] * 200], output=classes(), validations=validations)
    finding = found(h).get("R15")
    assert (finding and finding.severity) == severity
    assert (finding is not None and "by heart" in finding.message) == by_heart


@pytest.mark.parametrize(("module", "told"), [("se", False), ("", True)])
def test_gates_may_be_slow(module: str, told: bool) -> None:
    """What a sigmoid of squeeze and excitation multiplies is pooled; without it one layer is as slow."""
    slow = f"{module}.up.weight" if module else "up.weight"
    names = ["stem.weight", "body.weight", slow]
    facts = Facts({n: ParameterFacts(n, (9, 100), "hidden", std=0.1, group=0) for n in names})
    h = History(facts, 300)
    kinds = {"relu": "relu", f"{module}.sigmoid".lstrip("."): "sigmoid"}
    for step in range(0, 200, 10):
        h.losses.add([CHANCE - 0.005 * step] * 10)
        moved = dict.fromkeys(names, -2.0) | {slow: -3.9}
        statistics = {"update_to_data": moved, "gradient_std": dict.fromkeys(names, 1.0)}
        h.add(Observation(step, statistics, kinds, classes()))
    assert ("R11" in found(h)) == told


@pytest.mark.parametrize(
    ("dead", "learned", "severity"),
    [(0.45, True, "note"), (0.45, False, "warning"), (0.35, False, None)],
)
@pytest.mark.parametrize("first", [0.2, 0.45])
def test_units_that_are_dead_but_for_half(dead: float, learned: bool, severity: str | None, first: float) -> None:
    """Those that were dead from the start no network has left behind while it learned."""
    h = History(Facts(), 300)
    for step in range(0, 200, 10):
        h.losses.add([CHANCE if step < 30 or not learned else 0.3] * 10)
        h.add(Observation(step, {"dead_units": {"a": dead if step else first}}, {"a": "relu"}, classes()))
    severity = "warning" if first > 0.4 and severity else severity
    finding = found(h).get("R04")
    assert (finding and finding.severity) == severity
    assert finding is None or (finding.step == 0) == ("nor of the first" in finding.message) == (first > 0.4)


@pytest.mark.parametrize(("first", "later", "cause"), [(0.6, 0.6, None), (0.2, 0.6, "R09"), (0.5, 0.75, "R09")])
def test_steps_are_not_to_blame_for_units_that_never_responded(first: float, later: float, cause: str | None) -> None:
    h = History(Facts({"w": ParameterFacts("w", (9, 100), "hidden", std=0.1, group=0)}), 300)
    for step in range(0, 300, 10):
        h.losses.add([CHANCE * (1 - 0.001 * step)] * 10)
        dead = {"a": later if step else first}
        statistics = {"dead_units": dead, "update_to_data": {"w": -1.6}, "gradient_std": {"w": 1.0}}
        h.add(Observation(step, statistics, {"a": "relu"}, classes()))
        if step == 180:
            diagnosis = Diagnosis()
            diagnosis.update(h)
    by_rule = {finding.rule: finding for finding in diagnosis.findings}
    assert by_rule["R04"].caused_by == cause
    assert (by_rule["R09"].severity == "note") == (cause is None)


@pytest.mark.parametrize(("dead", "update", "expected"), [(0.45, -1.9, "note"), (0.45, -2.1, None), (0.2, -1.9, None)])
def test_updates_beside_units_that_have_died(dead: float, update: float, expected: str | None) -> None:
    facts = Facts({"w": ParameterFacts("w", (9, 100), "hidden", std=0.1, group=0)})
    h = History(facts, 300)
    for step in range(0, 200, 10):
        h.losses.add([CHANCE if step < 30 else 0.05] * 10)
        statistics = {
            "dead_units": {"a": dead if step else 0.0},
            "update_to_data": {"w": update},
            "gradient_std": {"w": 1.0},
        }
        h.add(Observation(step, statistics, {"a": "relu"}, classes()))
    finding = found(h).get("R09")
    assert (finding and finding.severity) == expected


@pytest.mark.parametrize(
    ("every", "by", "told"),
    [(8, -0.8, True), (8, 0.8, True), (8, 0.42, True), (40, -0.8, False), (8, -0.1, False)],
)
def test_batches_of_another_kind(every: int, by: float, told: bool) -> None:
    """Batches of inputs that are too large have a small loss where all are right."""
    draw = random.Random(0)
    losses = [1.5 + 0.03 * draw.gauss(0, 1) + by * (step % every == every // 2) for step in range(300)]
    finding = found(run([CHANCE, CHANCE, *losses], output=classes())).get("R07")
    assert (finding is not None) == told
    assert finding is None or (finding.severity == "note" and "of another kind" in finding.suggestion)


@pytest.mark.parametrize(("times", "told"), [(2.4, False), (2.6, True), (6.0, True)])
def test_single_losses_that_come_back(times: float, told: bool) -> None:
    losses = [1.2 * (times if step % 30 == 12 else 1.0) for step in range(400)]
    finding = found(run([CHANCE, CHANCE, *losses], output=classes())).get("R07")
    assert (finding is not None and "every 30 steps" in finding.message) == told


@pytest.mark.parametrize(("loss", "severity"), [(1.5, None), (1.7, "note"), (3.5, "warning")])
def test_the_first_loss_of_a_regression(loss: float, severity: str | None) -> None:
    h = History(Facts(), 300)
    h.losses.add([loss])
    h.add(Observation(0, {}, {}, Output("regression", 1.0, loss, 0.01, math.nan, constant=0.9)))
    finding = found(h).get("R01")
    assert (finding and finding.severity) == severity


@pytest.mark.parametrize(
    ("kind", "spread", "rules"), [("cross_entropy", 1.2, {"R01", "R02"}), ("cross_entropy", 0.8, {"R01"})]
)
def test_a_first_loss_a_little_above_chance(kind: str, spread: float, rules: set[str]) -> None:
    h = History(Facts(), 300)
    h.losses.add([2.75])
    h.add(Observation(0, {}, {}, Output(kind, CHANCE, 2.75, 0.05, spread)))
    assert {rule: finding.severity for rule, finding in found(h).items()} == dict.fromkeys(rules, "note")


@pytest.mark.parametrize(
    ("value", "apart", "stuck", "severity"),
    [
        (0.001, True, True, "critical"),
        (0.05, True, True, "note"),
        (0.001, False, True, "note"),
        (0.001, True, False, "note"),
    ],
)
def test_a_gradient_that_vanished_while_biases_learned(value: float, apart: bool, stuck: bool, severity: str) -> None:
    """The loss has come down to the frequencies of the classes, and the first layers have hardly moved."""
    diagnosis = Diagnosis()
    found = [Finding("R06", "note", "w", 0, value, 0.01, "", "")]
    found += [Finding("R11", "warning", "w", 70, 3.0, 1.5, "", "")] * apart
    found += [Finding("R13", "critical", "loss", 200, 2.2, 2.2, "", "")] * stuck
    diagnosis.restore(found)
    diagnosis.update(run([CHANCE] * 30))
    assert next(f.severity for f in diagnosis.findings if f.rule == "R06") == severity


@pytest.mark.parametrize(("std", "expected"), [(0.1, "R09"), (0.02, None)])
def test_weights_that_were_drawn_small_have_to_grow(std: float, expected: str | None) -> None:
    """They are ten times as large in the end."""
    facts = Facts({"w": ParameterFacts("w", (100, 100), "hidden", std=std, group=0)})
    h = History(facts, 300)
    for step in range(300):
        h.losses.add([CHANCE - 0.001 * step])
        if step % 10 == 0:
            statistics = {"update_to_data": {"w": -1.4}, "gradient_std": {"w": 1.0}, "data_std": {"w": 10 * std}}
            h.add(Observation(step, statistics, {}, classes()))
    finding = found(h).get("R09")
    assert (finding is not None and "as they were drawn" in finding.message) == (expected is not None)


@pytest.mark.parametrize(("std", "told"), [(0.1, True), (0.02, False)])
def test_updates_beside_small_weights_look_large(std: float, told: bool) -> None:
    facts = Facts({"w": ParameterFacts("w", (100, 100), "hidden", std=std, group=0)})
    assert ("R09" in found(run(falling(CHANCE, 1.0), facts=facts, output=classes(), update=-1.6))) == told


def test_a_sign_is_right_where_the_loss_falls_after_all() -> None:
    diagnosis = Diagnosis()
    diagnosis.restore(
        [Finding("R14", "critical", "loss", 40, 1.6, 1.3, "", f"{SIGN}: it never fell. {ELSE}Lower optimizer.lr.")]
    )
    diagnosis.update(run([*[CHANCE] * 20, *[1.5 * CHANCE] * 40, *falling(1.5 * CHANCE, 0.5, 240)], output=classes()))
    found = next(f for f in diagnosis.findings if f.rule == "R14")
    assert (found.severity, found.suggestion) == ("note", "Lower optimizer.lr.")


def test_layers_that_are_slow_when_all_is_learned_blame_no_gradient() -> None:
    diagnosis = Diagnosis()
    found = [Finding("R06", "note", "w", 0, 0.001, 0.01, "", ""), Finding("R11", "note", "w", 70, 3.0, 1.5, "", "")]
    diagnosis.restore([*found, Finding("R13", "critical", "loss", 200, 2.2, 2.2, "", "")])
    diagnosis.update(run([CHANCE] * 30))
    assert next(f.severity for f in diagnosis.findings if f.rule == "R06") == "note"


@pytest.mark.parametrize(("output", "told"), [(False, False), (True, True)])
def test_the_module_of_an_output_is_no_gate(output: bool, told: bool) -> None:
    """And where gates hold half of the weights, as a recurrent cell does, they are looked at like all others."""
    for gated in (["head.up.weight"], ["head.up.weight", "head.down.weight"]):
        names = ["stem.weight", "body.weight", *gated]
        h = History(Facts({n: ParameterFacts(n, (9, 100), "hidden", std=0.1, group=0) for n in names}), 300)
        for step in range(0, 200, 10):
            h.losses.add([CHANCE - 0.005 * step] * 10)
            moved = dict.fromkeys(names, -2.0) | {"head.up.weight": -3.9}
            statistics = {"update_to_data": moved, "gradient_std": dict.fromkeys(names, 1.0)}
            heard = Heard(outputs={"head.sigmoid"} if output else set())
            h.add(Observation(step, statistics, {"a": "relu", "head.sigmoid": "sigmoid"}, classes(), heard=heard))
        assert ("R11" in found(h)) == (told or len(gated) == 2)


@pytest.mark.parametrize("more", [{"nan": True}, {"double": True}, {"many": True}])
def test_batches_are_not_blamed_where_it_is_not_certain(more: dict[str, bool]) -> None:
    """A loss of nan between them; most in rows, as after steps too far; so many that the first is no longer known."""
    draw, steps = random.Random(0), [13, 24, 37, 46, 59, 70, 83, 92, 105]
    while "many" in more and len(steps) < 120:
        steps.append(steps[-1] + draw.randint(12, 18))
    losses = [1.0 + 0.01 * (step % 10) for step in range(1990 if "many" in more else 300)]
    for step in steps:
        losses[step] = 20.0
    for step in range(120, 290, 17) if "double" in more else ():
        losses[step] = losses[step + 1] = 20.0
    if "nan" in more:
        losses[5] = math.nan
    output = Output("cross_entropy", 2.0, 1.0, 0.01, 0.1)
    finding = found(run(losses, output=output)).get("R07")
    assert finding is None or "began at once" not in finding.message


def test_losses_near_nothing_are_of_no_other_kind() -> None:
    losses = [*falling(CHANCE, 0.02, 100), *[0.02 + 0.05 * (step % 8 == 4) for step in range(200)]]
    assert "R07" not in found(run(losses, output=classes()))


@pytest.mark.parametrize(("slow", "then", "severity"), [(60, 1.0, None), (200, 1.0, "critical"), (200, 0.2, "note")])
def test_a_rate_that_was_next_to_nothing(slow: int, then: float, severity: str | None) -> None:
    """Until lately, or all along; and once the loss has fallen all the same."""
    diagnosis, h = Diagnosis(), History(Facts({"w": ParameterFacts("w", (9, 100), "hidden", std=0.1, group=0)}), 400)
    for step in range(0, 400, 10):
        h.losses.add([CHANCE * (1.0 if step < 250 else then)] * 10)
        starts = step < slow
        statistics = {"update_to_data": {"w": -6.0 if starts else -4.3}, "gradient_std": {"w": 1.0}}
        share = 1e-4 if slow == 60 and starts else 1.0
        h.add(Observation(step, statistics if slow == 200 or starts else WELL, {}, classes(), share))
        diagnosis.follow(h)
    found = {finding.rule: finding for finding in diagnosis.findings}.get("R10")
    assert (found and found.severity) == severity


@pytest.mark.parametrize("spikes", [range(101, 300, 23), range(100, 300, 60)])
@pytest.mark.parametrize(("factor", "told"), [(4.0, False), (1.05, True)])
def test_losses_that_differ_by_factors_all_the_time(factor: float, told: bool, spikes: range) -> None:
    """As of targets with heavy tails: a loss of thirty times the usual one is no spike then."""
    draw = random.Random(0)
    losses = [0.3 * factor ** draw.gauss(0, 1) for _ in range(300)]
    for step in spikes:
        losses[step] = 9.0
    findings = found(run(losses, output=Output("regression", 1.0, 1.0, 0.1, math.nan, 1.0)))
    assert ("R07" in findings and findings["R07"].severity == "warning") == told


@pytest.mark.parametrize(("heavy", "told"), [(True, False), (False, True)])
def test_an_average_that_single_losses_move(heavy: bool, told: bool) -> None:
    """Each is as high as twenty of those that rise."""
    losses = [max(1.0 - 0.01 * step, 0.2) for step in range(150)]
    losses += [20.0 if step % 40 == 20 else 0.2 for step in range(150)] if heavy else [0.9] * 150
    h = run(losses[:290], output=Output("regression", 1.0, 1.0, 0.01, math.nan, 1.0))
    assert ("R14" in found(h)) == told


@pytest.mark.parametrize(("end", "dead", "expected"), [(0.5, 0.6, True), (0.5, 0.35, False), (0.3, 0.6, False)])
def test_steps_that_kill_units_and_leave_most_of_the_loss(end: float, dead: float, expected: bool) -> None:
    """Though it falls to half."""
    h = History(Facts({"w": ParameterFacts("w", (9, 100), "hidden", std=0.1, group=0)}), 300)
    for step in range(0, 300, 10):
        h.losses.add([max(CHANCE * (1 - 0.005 * step), CHANCE * end * 0.99)] * 10)
        statistics = {
            "dead_units": {"a": dead if step else 0.0},
            "update_to_data": {"w": -1.6},
            "gradient_std": {"w": 1.0},
        }
        h.add(Observation(step, statistics, {"a": "relu"}, classes()))
    finding = found(h).get("R09")
    assert (finding is not None and finding.severity == "warning") == expected


@pytest.mark.parametrize(("noise", "change"), [(0.1, "Look at what is different from step 200 on"), (2.0, "Lower")])
def test_a_leap_that_is_no_spike(noise: float, change: str) -> None:
    """As of labels of which a part is random from there on; not where some losses were as high before."""
    draw = random.Random(0)
    losses = [max(CHANCE - 0.05 * step, 0.8) + abs(draw.gauss(0, noise)) * (step > 40) for step in range(199)]
    losses += [2.1 + abs(draw.gauss(0, noise)) for _ in range(80)]
    assert found(run(losses, output=classes(), update=-2.8))["R14"].suggestion.startswith(change)


@pytest.mark.parametrize(("first", "told"), [(0.4, False), (1.9, True)])
def test_a_gradient_of_what_was_trained_before(first: float, told: bool) -> None:
    """It may have come to its end."""
    h = History(Facts(), 300)
    for step in range(0, 200, 10):
        h.losses.add([first] * 10)
        stds = {"activation_gradient_std": {"a": 1.0, "b": 0.2, "c": 0.05}}
        h.add(Observation(step, stds, dict.fromkeys("abc", "relu"), classes(first)))
    assert (found(h).get("R06", None) is not None and found(h)["R06"].severity == "warning") == told


@pytest.mark.parametrize(
    ("lr", "change"), [(1e-5, "Raise the learning rate of the group of b"), (1e-3, "Give the layers")]
)
def test_layers_apart_by_the_rates_of_their_groups(lr: float, change: str) -> None:
    rates = {"a": 1e-3, "b": lr, "c": 1e-3}
    facts = {n: ParameterFacts(n, (9, 100), "hidden", std=0.1, group=0, lr=rate) for n, rate in rates.items()}
    h = History(Facts(facts), 300)
    for step in range(0, 200, 10):
        h.losses.add([CHANCE - 0.005 * step] * 10)
        statistics = {"update_to_data": {"a": -2.2, "b": -4.2, "c": -2.3}, "gradient_std": dict.fromkeys("abc", 1.0)}
        h.add(Observation(step, statistics, {}, classes()))
    assert found(h)["R11"].suggestion.startswith(change)


@pytest.mark.parametrize(("loss", "severity"), [(0.07, "note"), (CHANCE, "warning")])
def test_units_that_a_network_has_learned_to_saturate(loss: float, severity: str) -> None:
    h = History(Facts(), 300)
    h.losses.add([loss])
    h.add(Observation(0, {"saturation": {"a": 0.1, "b": 0.6}}, {"a": "tanh", "b": "tanh"}, classes(loss)))
    assert found(h)["R03"].severity == severity


def test_a_loss_that_climbs_has_not_leaped() -> None:
    """Each step goes on from the one before."""
    climb = [0.1 + 0.46 * step for step in range(1, 16)]
    losses = [*falling(CHANCE, 0.1, 150), *[0.1] * 40, *climb, *[7.0] * 60]
    assert found(run(losses, output=classes(), update=-2.8))["R14"].suggestion.startswith("Lower optimizer.lr")


@pytest.mark.parametrize(("end", "severity"), [(0.7, "critical"), (0.5, "note")])
def test_a_loss_that_has_stood_still_and_set_out(end: float, severity: str) -> None:
    diagnosis, h = Diagnosis(), History(Facts(), 600)
    stds = {"activation_gradient_std": {"a": 1e-3, "b": 0.03, "c": 1.0}}
    for step in range(0, 500, 10):
        h.losses.add([CHANCE * (1.0 if step < 200 else end)] * 10)
        h.add(Observation(step, stds if step else {}, dict.fromkeys("abc", "tanh"), classes()))
        diagnosis.follow(h)
    assert {f.rule: f.severity for f in diagnosis.findings}["R06"] == severity


@pytest.mark.parametrize(("std", "told"), [(math.nan, False), (math.inf, False), (9.0, True)])
def test_what_overflows_is_not_held_against_an_activation(std: float, told: bool) -> None:
    h = History(Facts(), 300)
    h.losses.add([CHANCE])
    layers = {"saturation": {"a": 1.0}, "preactivation_std": {"a": std}}
    h.add(Observation(0, layers, {"a": "tanh"}, classes()))
    assert ("R03" in found(h)) == told
