"""Several networks in one module: which layers end one, and what follows for the rules."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from bnlm.doctor import Diagnosis, Facts, History, Observation, Output, facts_of
from bnlm.doctor.depth_rules import chains_of
from bnlm.doctor.facts import ParameterFacts


def mlp(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (nn.ModuleDict({"pi": mlp(4, 64, 64, 3), "v": mlp(4, 64, 64, 1)}), {"pi.4.weight"}),
        (nn.ModuleDict({"actor": mlp(4, 64, 64, 1), "q": mlp(5, 64, 64, 1)}), {"actor.4.weight"}),
        (nn.ModuleDict({"encoder": mlp(16, 32, 8), "decoder": mlp(8, 32, 16)}), set()),
        (nn.ModuleDict({"q": nn.Linear(32, 16), "k": nn.Linear(32, 16), "v": nn.Linear(32, 16)}), set()),
        (nn.ModuleDict({"body": mlp(16, 32, 32), "head": mlp(35, 16, 3)}), set()),  # three numbers are put beside it
        (mlp(16, 32, 32, 5), set()),
    ],
)
def test_a_network_that_begins_with_what_another_reads(model: nn.Module, expected: set[str]) -> None:
    facts = facts_of(model)
    assert facts.ends == expected
    assert {name for name in expected if facts.parameters[name].role == "output"} == expected


def test_networks_with_optimizers_of_their_own() -> None:
    generator = nn.Sequential(nn.ConvTranspose2d(8, 4, 4), nn.ReLU(), nn.ConvTranspose2d(4, 1, 4), nn.Tanh())
    critic = nn.Sequential(nn.Conv2d(1, 4, 3), nn.LeakyReLU(), nn.Conv2d(4, 1, 3))
    both = nn.ModuleDict({"g": generator, "d": critic})
    optimizers = [torch.optim.Adam(each.parameters()) for each in (generator, critic)]
    facts = facts_of(both, optimizers)
    assert facts.ends == {"g.2.weight"}
    assert facts.network_of == {"g.1": 0, "g.3": 0, "d.1": 1}
    assert facts_of(both, [torch.optim.Adam(both.parameters())]).ends == set()
    of_each = [torch.optim.SGD([parameter], lr=0.1) for parameter in both.parameters()]
    assert facts_of(both, of_each).ends == set()


def test_optimizers_of_parts_of_one_network() -> None:
    net = nn.Sequential(*[nn.Conv2d(4, 4, 3) for _ in range(10)])
    head_apart = [torch.optim.SGD(net[:9].parameters(), lr=0.1), torch.optim.SGD(net[9:].parameters(), lr=0.1)]
    assert facts_of(net, head_apart).ends == set()
    of_blocks = [torch.optim.SGD(net[i : i + 2].parameters(), lr=0.1) for i in range(0, 10, 2)]
    assert facts_of(net, of_blocks).ends == set()


@pytest.mark.parametrize(("ends", "severity"), [({"w"}, "note"), (set(), "critical")])
def test_actions_and_pixels_may_be_extreme(ends: set[str], severity: str) -> None:
    facts = Facts({"w": ParameterFacts("w", (1, 64), "output", std=0.1)}, weight_of={"act": "w"}, ends=ends)
    h = History(facts, 1000)
    for step in range(0, 200, 10):
        h.losses.add([2.3] * 10)
        statistics = {"saturation": {"act": 0.95}, "activation_std": {"act": 0.95}}
        h.add(Observation(step, statistics, {"act": "tanh"}, Output("cross_entropy", 2.3, 2.3, 0.1, 0.1)))
    diagnosis = Diagnosis()
    diagnosis.update(h)
    assert [f.severity for f in diagnosis.findings if f.rule == "R03"] == [severity]


def test_layers_of_two_networks_are_no_chain() -> None:
    h = History(Facts(network_of={"pi.1": 0, "pi.3": 0, "v.1": 1, "v.3": 1}), 1000)
    layers = ["pi.1", "pi.3", "v.1", "v.3", "v.1_1", "v.3_1"]
    observation = Observation(0, {}, dict.fromkeys(layers, "tanh"))
    chains = chains_of("tanh", h, observation, dict.fromkeys(layers, 1.0))
    assert chains == [["pi.1", "pi.3"], ["v.1", "v.3", "v.1_1", "v.3_1"]]
