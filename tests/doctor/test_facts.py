"""What the rules have to know of a network, and R12, R17 and R19, which speak of it."""

from __future__ import annotations

import copy
import math
from typing import Never

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnlm.doctor import Diagnosis, Facts, Finding, History, Observation, Output, StatisticsGap, check, facts_of
from bnlm.doctor.depth_rules import is_one_leap
from bnlm.doctor.facts import ParameterFacts
from bnlm.doctor.unregistered import unregistered_parameters
from bnlm.probe import ActivationTap


def found(of: History) -> dict[str, Finding]:
    diagnosis = Diagnosis()
    diagnosis.update(of)
    return {finding.rule: finding for finding in diagnosis.findings}


class TwoNetworks(nn.Module):
    """One is trained; the other is a copy that no loss goes through, as a target network is."""

    def __init__(self) -> None:
        super().__init__()
        self.online = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
        self.target = copy.deepcopy(self.online)


@pytest.mark.parametrize(
    ("forgotten", "severity"), [([], None), (["online.0.bias"], "warning"), (["online.0.weight"], "critical")]
)
def test_what_no_optimizer_holds(forgotten: list[str], severity: str | None) -> None:
    model = TwoNetworks()
    held = [p for name, p in model.named_parameters() if name.startswith("online") and name not in forgotten]
    h = History(facts_of(model, [torch.optim.SGD(held, 0.1)]), 1000)
    F.cross_entropy(model.online(torch.randn(8, 4)), torch.zeros(8, dtype=torch.long)).backward()
    for step in range(0, 130, 10):
        names = [name for name, p in model.named_parameters() if any(p is one for one in held)]
        h.add(Observation(step, {"gradient_std": dict.fromkeys(names, 1.0)}, {}))
    finding = found(h).get("R12")
    assert (finding and finding.severity) == severity
    if finding is not None:
        assert finding.where == forgotten[0]
        assert "in no optimizer" in finding.message


class InPlainLists(nn.Module):
    """All but its last layer is where torch does not look."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = [nn.Linear(4, width), nn.Linear(width, 2)]
        self.by_name = {"scale": [nn.Parameter(torch.ones(2))]}
        self.last = nn.Linear(2, 2)
        self.frozen = [nn.Linear(2, 2).requires_grad_(False)]
        self.again = (self.last,)
        object.__setattr__(self, "past_torch", nn.Linear(2, 2, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.past_torch(self.last(x)) * self.by_name["scale"][0]


@pytest.mark.parametrize(("width", "severity"), [(8, "critical"), (None, "warning")])
def test_what_torch_does_not_know_of(width: int | None, severity: str) -> None:
    model = InPlainLists(width or 8)
    if width is None:
        model.layers.pop()
        model.layers[0] = nn.Linear(4, 2, bias=False)
        model.more = nn.Linear(20, 20)
    h = History(facts_of(model, [torch.optim.SGD(model.parameters(), 0.1)]), 1000)
    for step in (0, 10):
        h.add(Observation(step, {"gradient_std": {name: 1.0 for name, _ in model.named_parameters()}}, {}))
    assert "R12" not in found(h)  # nothing of it has come to the loss
    F.cross_entropy(model(torch.randn(8, 4)), torch.zeros(8, dtype=torch.long)).backward()
    finding = found(h)["R12"]
    assert finding.severity == severity
    names = ["layers[0].weight", *(["layers[0].bias", "layers[1].weight", "layers[1].bias"] if width else [])]
    assert list(h.facts.unregistered) == [*names, "by_name['scale'][0]", "past_torch.weight"]
    assert "nn.ModuleList" in finding.suggestion
    everything = [*model.parameters(), *h.facts.unregistered.values()]
    assert not facts_of(model, [torch.optim.SGD(everything, 0.1)]).unregistered


@pytest.mark.parametrize(("norm", "name"), [(nn.BatchNorm2d, "BatchNorm"), (nn.InstanceNorm2d, "InstanceNorm")])
def test_the_normalization_that_removes_a_bias_is_named(norm: type[nn.Module], name: str) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), norm(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))  # type: ignore[call-arg]
    batch = torch.randn(8, 1, 8, 8), torch.randint(2, (8,))
    messages = [f.message for f in check(network, batch, F.cross_entropy, table=False) if f.rule == "R19"]
    assert [f"the {name} after it" in message for message in messages] == [True]


class Apart(nn.Module):
    """Convolutions in one list and normalizations in another, as many write them."""

    def __init__(self, norm: str, skip: bool, bias: bool = True) -> None:
        super().__init__()
        norms = {"batch": nn.BatchNorm2d, "instance": nn.InstanceNorm2d, "group": lambda n: nn.GroupNorm(2, n)}
        self.convs = nn.ModuleList(nn.Conv2d(channels, 4, 3, padding=1, bias=bias) for channels in (1, 4, 4))
        self.norms = nn.ModuleList(norms[norm](4) for _ in range(3))
        self.head = nn.Linear(4, 2)
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            y = conv(x)
            x = F.relu(norm(y)) + (y if self.skip else 0)
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize(
    ("norm", "skip", "bias", "where"),
    [
        ("batch", False, True, ["convs.0, convs.1 and convs.2"]),
        ("instance", False, True, ["convs.0, convs.1 and convs.2"]),
        ("group", False, True, []),
        ("batch", True, True, []),  # the bias goes past the normalization, too
        ("batch", False, False, []),
    ],
)
def test_what_is_normalized_is_told_by_the_forward_pass(norm: str, skip: bool, bias: bool, where: list[str]) -> None:
    torch.manual_seed(0)
    batch = torch.randn(8, 1, 8, 8), torch.randint(2, (8,))
    findings = check(Apart(norm, skip, bias), batch, F.cross_entropy, table=False)
    assert [f.where for f in findings if f.rule == "R19"] == where


def test_updates_are_judged_by_what_the_forward_pass_normalizes() -> None:
    facts = facts_of(Apart("group", False))
    assert not facts.parameters["convs.0.weight"].feeds_norm
    facts.take_order({"convs.0": "group_norm"}, {})
    assert facts.parameters["convs.0.weight"].feeds_norm


@pytest.mark.parametrize(
    ("validation", "train", "severity"),
    [
        (0.60, 0.5, "critical"),
        (0.54, 0.5, "warning"),
        (0.02, 0.01, "warning"),  # twice as much, and next to nothing
        (None, None, "warning"),
    ],
)
def test_statistics_that_cost_a_tenth_of_the_loss(validation: float | None, train: float | None, severity: str) -> None:
    h = History(Facts(), 1000)
    h.add(Observation(0, {}, {}, Output("cross_entropy", math.log(10), 2.3, 0.1, 0.1)))
    h.gaps.append(StatisticsGap("norm", 0.5, 0.0, 0.001, 600))
    if validation is not None and train is not None:
        h.validations.append((validation, train))
    finding = found(h)["R17"]
    assert finding.severity == severity
    assert "55% of their start is left in them" in finding.message


def test_what_is_left_of_the_start() -> None:
    gap = StatisticsGap("norm", 0.0, 0.0, 0.1, 20)
    assert gap.residue(20) == pytest.approx(0.9**20, rel=1e-12)
    assert StatisticsGap("norm", 0.0, 0.0, 0.0, 20).residue(20) == 1.0  # never updated
    assert StatisticsGap("norm", 0.0, 0.0, None, 20).residue(20) == 0.0  # an average over all batches


@pytest.mark.parametrize(("inputs", "weights", "expected"), [(200.0, 1.0, "inputs"), (1.0, 30.0, "kaiming_normal")])
def test_tanh_may_be_flat_because_of_inputs_or_of_weights(inputs: float, weights: float, expected: str) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(100, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 5))
    nn.init.normal_(network[0].weight, 0, weights / 10)  # type: ignore[arg-type]
    batch = inputs * torch.randn(64, 100), torch.randint(5, (64,))
    suggestions = [f.suggestion for f in check(network, batch, F.cross_entropy, table=False) if f.rule == "R03"]
    assert [expected in suggestion for suggestion in suggestions] == [True]


@pytest.mark.parametrize("steps", [1, 20])
def test_a_gradient_that_fades_over_time_is_a_note_at_the_start(steps: int) -> None:
    """A recurrent cell may learn from its last steps alone; a stack of that many layers may not."""

    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inputs, self.out = nn.Linear(4, 32), nn.Linear(32, 3)
            self.layers = nn.ModuleList(nn.Linear(32, 32, bias=False) for _ in range(20 // steps))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = torch.tanh(self.inputs(x))
            for layer in list(self.layers) * steps:
                h = torch.tanh(self.inputs(x) + layer(h))
            return self.out(h)

    torch.manual_seed(0)
    batch = torch.randn(32, 4), torch.randint(3, (32,))
    found = [f for f in check(Cell(), batch, F.cross_entropy, table=False) if f.rule == "R06"]
    assert [f.severity for f in found] == ["note" if steps == 20 else "critical"]
    assert ("orthogonal_" if steps == 20 else "kaiming_normal_") in found[0].suggestion


def test_activations_that_are_registered_in_a_row_are_not_after_the_last_weight() -> None:
    class Stacked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(8, 8) for _ in range(3)])
            self.acts = nn.ModuleList([nn.Tanh() for _ in range(3)])

    assert facts_of(Stacked()).weight_of == {}
    assert facts_of(nn.Sequential(nn.Conv1d(8, 8, 3), nn.Tanh(), nn.MaxPool1d(2))).weight_of["1"] == "0.weight"


def test_a_dictionary_of_its_own_kind_is_looked_into_all_the_same() -> None:
    class Refuses(dict[str, object]):
        def items(self) -> Never:
            raise RuntimeError

    module = nn.Linear(2, 2)
    module.more = Refuses(weight=nn.Parameter(torch.ones(2)), scale=torch.ones(2))
    assert list(unregistered_parameters(module)) == ["more['weight']"]


@pytest.mark.parametrize(
    ("gradients", "outputs", "leaps"),
    [
        ([7e-4, 6e-4, 6e-7, 5e-7], [0.6, 0.7, 0.6, 0.7], True),  # two passes, the second of little weight
        ([0.0, 9e-4, 2e-3, 9e-4], [0.2, 0.07, 0.4, 0.2], True),  # a penalty's pass, through which nothing comes
        ([9e-4, 9e-4, 9e-6], [0.5, 0.5, 50.0], False),  # weights that are large
        ([1e-1, 2e-2, 4e-3, 8e-4], [0.9, 0.9, 0.9, 0.9], False),  # from layer to layer
        ([1e-6, 1e-3, 1.0], [0.5, 0.5, 0.5], False),
        ([0.0, 0.0, 1e-9, 1e-3], [0.5, 0.5, 0.5, 0.5], False),
    ],
)
def test_a_gradient_that_leaps_between_two_layers(gradients: list[float], outputs: list[float], leaps: bool) -> None:
    assert is_one_leap([f"a{i}" for i in range(len(gradients))], gradients, outputs) == leaps
    # Of an nn.Sequential each is called with what the one before returned.
    assert not is_one_leap([f"net.{2 * i}" for i in range(len(gradients))], gradients, outputs)


def test_a_recurrent_cell_is_told_of_orthogonal_weights() -> None:
    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inputs, self.state, self.out = nn.Linear(8, 32), nn.Linear(32, 32), nn.Linear(32, 3)
            nn.init.normal_(self.state.weight)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = x.new_zeros(len(x), 32)
            for inputs in x.unbind(1):
                h = torch.tanh(self.inputs(inputs) + self.state(h))
            return self.out(h)

    torch.manual_seed(0)
    found = check(Cell(), (torch.randn(32, 20, 8), torch.randint(3, (32,))), F.cross_entropy, table=False)
    advice = {finding.rule: finding.suggestion for finding in found}
    assert "orthogonal_" in advice["R03"]
    assert "kaiming" not in advice["R03"]
    assert advice["R06"] == "Mend R03 saturated_activation first."


@pytest.mark.parametrize(
    ("size", "severity", "cause"),
    [(8, "warning", None), (80, "critical", "R12")],  # the last of many blocks may compute what nothing uses
)
def test_a_small_part_without_gradient_explains_nothing(size: int, severity: str, cause: str | None) -> None:
    h = History(facts_of(nn.Sequential(nn.Linear(80, 20), nn.Linear(size, 8))), 1000)
    for step in range(0, 130, 10):
        h.losses.add([2.3] * 50)
        h.add(Observation(step, {"gradient_std": {"0.weight": 1.0, "0.bias": 1.0}}, {}))
    finding = found(h)["R12"]
    assert (finding.severity, finding.where) == (severity, "1.weight and 1.bias")
    assert found(h)["R13"].caused_by == cause


def test_what_has_no_gradient_is_no_slow_layer() -> None:
    rarely = [["0.weight"], ["0.weight"], ["0.weight", "1.weight"]]  # a mixture's expert that is seldom asked
    for graded_at, expected in (([["0.weight"]], False), ([["0.weight", "1.weight"]], True), (rarely, False)):
        h = History(facts_of(nn.Sequential(nn.Linear(80, 80), nn.Linear(80, 80), nn.Linear(80, 8))), 1000)
        updates = {"0.weight": -2.5, "1.weight": -math.inf}
        for step in range(0, 150, 10):
            h.losses.add([2.3] * 10)
            graded = dict.fromkeys(graded_at[step // 10 % len(graded_at)], 1.0)
            h.add(Observation(step, {"gradient_std": graded, "update_to_data": updates}, {}))
        assert ("R11" in found(h)) == expected


@pytest.mark.parametrize(("scale", "told"), [(0.01, True), (0.4, False)])
def test_a_first_step_that_is_large_beside_small_weights(scale: float, told: bool) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 8))
    nn.init.normal_(network[0].weight, std=scale / 8)
    h = History(facts_of(network), 1000)
    h.add(Observation(0, {"update_to_data": {"0.weight": 0.2, "2.weight": -1.0}}, {}))
    finding = found(h)["R09"]
    assert ("one over the root of its inputs is 0.12" in finding.message) == told
    assert ("kaiming_normal" in finding.suggestion) == told


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
@pytest.mark.parametrize("new", [False, True])
def test_the_lengths_of_weight_norm_are_no_matrix(new: bool) -> None:
    torch.manual_seed(0)
    norm = nn.utils.parametrizations.weight_norm if new else nn.utils.weight_norm  # type: ignore[attr-defined]
    model = nn.Sequential(norm(nn.Conv1d(3, 4, 5)), nn.ReLU(), norm(nn.Linear(4, 6)), nn.Linear(6, 2))
    roles = {name: one.role for name, one in facts_of(model).parameters.items()}
    assert [roles[name] for name in roles if name.endswith(("_g", "original0"))] == ["vector", "vector"]
    assert [roles[name] for name in roles if name.endswith(("_v", "original1"))] == ["hidden", "hidden"]


@pytest.mark.parametrize(
    ("std", "outputs", "norm", "severity"),
    [
        (1.5, 20.0, False, "warning"),
        (1.5, 200.0, False, "critical"),
        (1.5, 1.0, False, None),  # tanh, which R03 judges
        (1.5, 20.0, True, None),
        (0.5, 20.0, False, None),  # it is the inputs that are large
    ],
)
def test_weights_that_start_too_large(std: float, outputs: float, norm: bool, severity: str | None) -> None:
    facts = Facts({"w": ParameterFacts("w", (9, 16), "hidden", feeds_norm=norm, std=std)})
    h = History(facts, 1000)
    h.add(Observation(0, {"activation_std": {"a": outputs}}, {"a": "relu"}))
    diagnosis = Diagnosis()
    diagnosis.update(h)
    found = [finding for finding in diagnosis.findings if finding.rule == "R05"]
    assert [finding.severity for finding in found] == [severity] * (severity is not None)
    assert all("where one over the root of its inputs is 0.25" in finding.message for finding in found)


def test_transposed_convolutions_start_smaller_than_others() -> None:
    """Against what torch draws: an output is the sum of fewer inputs than it takes a weight to have."""
    torch.manual_seed(0)
    layers = nn.ConvTranspose2d(64, 32, 4, 2, 1, bias=False), nn.ConvTranspose2d(32, 16, 4, 2, 1, bias=False)
    facts = facts_of(nn.Sequential(*layers, nn.Conv2d(16, 1, 3)))
    with torch.no_grad():
        std = math.prod(float(layer(torch.randn(8, layer.in_channels, 32, 32)).std()) for layer in layers)
    assert facts.spread_thin == pytest.approx(3 * std, rel=0.05)  # torch's linear layers keep 1/3 of a variance each
    assert facts_of(nn.Sequential(nn.Conv2d(3, 9, 3), layers[0])).spread_thin == 1.0  # the output


def test_an_autoencoder_of_convolutions_as_torch_draws_it() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 12, 3, 2, 1), nn.ReLU(), nn.Conv2d(12, 16, 3, 2, 1), nn.ReLU(),
        nn.ConvTranspose2d(16, 12, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(12, 1, 4, 2, 1),
    )  # fmt: skip
    x = torch.randn(32, 1, 16, 16)
    assert [f for f in check(net, (x, x), F.mse_loss, table=False) if f.severity != "note"] == []
    with torch.no_grad():
        for parameter in [*net[2].parameters(), *net[4].parameters()]:
            parameter.mul_(0.5)
    assert "R05" in [f.rule for f in check(net, (x, x), F.mse_loss, table=False) if f.severity != "note"]


def test_transposed_convolutions_that_do_not_know_their_inputs_yet() -> None:
    net = nn.Sequential(nn.LazyConvTranspose2d(8, 4, 2, 1), nn.ReLU(), nn.LazyConvTranspose2d(1, 4, 2, 1))
    assert facts_of(net).spread_thin == 1.0


OPTIMIZERS = sorted(
    name
    for name, each in vars(torch.optim).items()
    if isinstance(each, type) and issubclass(each, torch.optim.Optimizer) and each is not torch.optim.Optimizer
)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_options_of_any_optimizer(name: str) -> None:
    """What they call alike is not always one number."""
    model = nn.Linear(4, 3, bias=False)
    facts = facts_of(model, [getattr(torch.optim, name)(model.parameters(), lr=0.01)])
    assert facts.parameters["weight"].lr == 0.01
    assert 0 <= facts.eps < 1e-3


def test_a_gradient_from_before_the_training_tells_nothing() -> None:
    """A teacher that was trained in the same script, and is asked under no_grad since."""
    model = nn.Linear(4, 2)
    model.teacher = [nn.Linear(4, 2)]
    F.cross_entropy(model.teacher[0](torch.randn(8, 4)), torch.zeros(8, dtype=torch.long)).backward()
    h = History(facts_of(model, [torch.optim.SGD(model.parameters(), 0.1)]), 1000)
    for step in (0, 10):
        h.add(Observation(step, {"gradient_std": {"weight": 1.0, "bias": 1.0}}, {}))
    assert "R12" not in found(h)
    F.cross_entropy(model.teacher[0](torch.randn(8, 4)), torch.zeros(8, dtype=torch.long)).backward()
    assert found(h)["R12"].where == "teacher[0].weight and teacher[0].bias"


@pytest.mark.parametrize(("passes", "expected"), [(2, []), (1, ["critical"])])
def test_passes_of_a_network_are_looked_at_by_themselves(passes: int, expected: list[str]) -> None:
    """Each of two passes keeps its gradient, and the second has a thousandth of the first one's; or one pass fades."""
    names = [f"net.{i}" for i in (1, 3, 5)] + [
        f"net.{i}{'_1' * (passes == 2)}" for i in ((1, 3, 5), (7, 9, 11))[passes == 1]
    ]
    stds = [1e-6, 1.1e-6, 1e-6, 1e-3, 1.1e-3, 1e-3] if passes == 2 else [1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2]
    h = History(Facts(), 1000)
    statistics = {"activation_gradient_std": dict(zip(names, stds, strict=True))}
    statistics["activation_std"] = {name: 0.5 * 10.0**i for i, name in enumerate(names)}
    h.add(Observation(0, statistics, dict.fromkeys(names, "tanh")))
    assert [f.severity for f in [found(h).get("R06")] if f is not None] == expected


@pytest.mark.parametrize(
    ("kind", "depth", "gain", "bias", "severity"),
    [
        ("tanh", 5, 0.5, False, "warning"),  # the calibration's example of what fades
        ("relu", 6, 0.7, True, "warning"),
        ("tanh", 5, 0.3, False, "critical"),
        ("tanh", 8, None, False, "note"),
        ("relu", 6, None, True, "note"),
        ("relu", 6, 0.8, False, "warning"),
        ("relu", 6, 1.414, False, None),
    ],
)
def test_what_fades_by_an_init_that_somebody_chose(
    kind: str, depth: int, gain: float | None, bias: bool, severity: str | None
) -> None:
    """Of torch's own a note is made, for so many train well with it; also where the biases alone are torch's."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for fan_in in (20, *[100] * (depth - 1)):
        layers += [nn.Linear(fan_in, 100, bias=bias), nn.Tanh() if kind == "tanh" else nn.ReLU()]
        if gain is not None:
            nn.init.normal_(layers[-2].weight, 0, gain / math.sqrt(fan_in))  # type: ignore[arg-type]
    network = nn.Sequential(*layers, nn.Linear(100, 5))
    batch = torch.randn(256, 20), torch.randint(5, (256,))
    drifts = [f.severity for f in check(network, batch, F.cross_entropy, table=False) if f.rule == "R05"]
    assert drifts == [severity][: severity is not None]


def test_weights_that_were_trained_before_are_as_they_were_learned() -> None:
    """Their biases tell."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for fan_in in (20, 100, 100, 100, 100):
        layers += [nn.Linear(fan_in, 100), nn.Tanh()]
        nn.init.normal_(layers[-2].weight, 0, 0.55 / math.sqrt(fan_in))  # type: ignore[arg-type]
        nn.init.normal_(layers[-2].bias, 0, 0.01)  # type: ignore[arg-type]
    network = nn.Sequential(*layers, nn.Linear(100, 5))
    batch = torch.randn(256, 20), torch.randint(5, (256,))
    drifts = [f.severity for f in check(network, batch, F.cross_entropy, table=False) if f.rule == "R05"]
    assert drifts == ["note"]


def test_inputs_that_have_been_through_weights_are_none() -> None:
    """A recurrent cell of bare parameters: the first layer called is the last of the network."""

    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w, self.out = nn.Parameter(1e-4 * torch.randn(4, 8)), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(torch.tanh(x @ self.w))

    for network, known in ((Bare(), False), (nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)), True)):
        tap = ActivationTap(network, losses=True)
        tap.attach()
        network(torch.randn(32, 4))
        tap.detach()
        assert math.isfinite(tap.record().heard.input_std) == known


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM, nn.RNN])
def test_a_recurrence_of_torch_that_only_zeros_come_to(kind: type[nn.Module]) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.out = kind(4, 8, batch_first=True), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.rnn(x)[0][:, -1])

    for x, blank in ((torch.zeros(32, 5, 4), "rnn"), (torch.randn(32, 5, 4), "")):
        network = Net()
        tap = ActivationTap(network, losses=True)
        tap.attach()
        network(x)
        tap.detach()
        heard = tap.record().heard
        assert heard.blank == blank
        h = History(facts_of(network), 300)
        graded = dict.fromkeys(h.facts.parameters, 1.0) | {"rnn.weight_ih_l0": 0.0 if blank else 1.0}
        for step in range(0, 60, 10):
            h.losses.add([1.1] * 10)
            output = Output("cross_entropy", 1.1, 1.1, 0.01, 0.3)
            h.add(Observation(step, {"gradient_std": graded}, {}, output, heard=heard))
        assert ("R13" in found(h)) == bool(blank)


@pytest.mark.parametrize(
    ("loss", "frozen", "severity"), [(2.3, False, "critical"), (0.05, False, "note"), (2.3, True, "note")]
)
def test_what_was_trained_before_is_as_large_as_it_was_learned_to_be(loss: float, frozen: bool, severity: str) -> None:
    h = History(Facts(frozen=frozen), 1000)
    stds = {"a": 0.8, "b": 10.0, "c": 140.0}
    h.add(
        Observation(
            0, {"activation_std": stds}, dict.fromkeys(stds, "relu"), Output("cross_entropy", 2.3, loss, 0.01, 0.3)
        )
    )
    assert found(h)["R05"].severity == severity


@pytest.mark.parametrize(("shape", "severity"), [((400, 8), "critical"), ((400, 1), "warning")])
def test_a_table_of_biases_is_no_matrix(shape: tuple[int, int], severity: str) -> None:
    """Of a user's items in pairs: what is the same for both cancels."""
    facts = Facts(
        {"w": ParameterFacts("w", (20, 20), "hidden", std=0.1), "b": ParameterFacts("b", shape, "embedding", std=0.1)}
    )
    h = History(facts, 1000)
    for step in range(0, 130, 10):
        h.add(Observation(step, {"gradient_std": {"w": 1.0}}, {}))
    assert found(h)["R12"].severity == severity


def test_a_hinge_on_one_score_is_no_layer() -> None:
    """Of a discriminator that is called twice: the second call follows the first hinge."""
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    tap = ActivationTap(network, losses=True)
    tap.attach()
    (F.relu(1 - network(torch.randn(16, 4))).mean() + F.relu(1 + network(torch.randn(16, 4))).mean()).backward()
    tap.detach()
    assert tap.record().heard.aside == {"relu", "relu_1"}


@pytest.mark.parametrize(("momentum", "first"), [(0.1, "Look whether validation"), (0.001, "Train longer")])
def test_what_is_told_first_of_statistics_that_differ(momentum: float, first: str) -> None:
    h = History(Facts(), 600)
    h.losses.add([1.0] * 100)
    h.add(Observation(0, {}, {}))
    h.gaps += [StatisticsGap("norm", 2.0, 0.0, momentum, step) for step in (400, 500, 600)]
    assert found(h)["R17"].suggestion.startswith(first)


def test_the_steps_of_a_stacked_cell_are_one_chain() -> None:
    """Three layers that are called five times each: what fades over time is seen, and is a note at the start."""
    names = [f"cell.{i}{f'_{call}' * (call > 0)}" for call in range(5) for i in (1, 3, 5)]
    h = History(Facts({f"w{i}": ParameterFacts(f"w{i}", (8, 8), "hidden", std=0.3) for i in range(6)}), 1000)
    stds = {name: 10.0 ** (i - 14) for i, name in enumerate(names)}
    h.add(
        Observation(
            0,
            {"activation_gradient_std": stds, "activation_std": dict.fromkeys(names, 0.5)},
            dict.fromkeys(names, "tanh"),
        )
    )
    assert found(h)["R06"].severity == "note"
    assert "15 in all" in found(h)["R06"].where


@pytest.mark.parametrize(("name", "feeds"), [("MyRMSNorm", True), ("BatchNorm1d", True), ("Normalizer", False)])
def test_a_normalization_that_somebody_wrote_is_known_by_its_name(name: str, feeds: bool) -> None:
    own = type(name, (nn.Module,), {"forward": lambda self, x: x / x.std()})()
    facts = facts_of(nn.Sequential(nn.Linear(4, 8), own, nn.Linear(8, 3)))
    assert facts.parameters["0.weight"].feeds_norm == feeds
