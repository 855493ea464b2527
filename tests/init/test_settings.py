"""Overrides by regular expression, and the scale of residual branches."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from bnlm.init import initialize, kaiming_normal, orthogonal, xavier_uniform


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(30, 40)
        self.body = nn.Sequential(nn.Linear(40, 50), nn.Tanh(), nn.Linear(50, 60), nn.ReLU())
        self.rnn = nn.GRU(60, 20)
        self.head = nn.Linear(20, 30)


def wanted(overrides: Any, **options: Any) -> dict[str, tuple[float | None, float | None]]:
    reports = initialize(Net(), kaiming_normal, overrides=overrides, generator=seeded(), **options)
    for report in reports:
        noise = 5 / math.sqrt(2 * math.prod(report.shape))
        assert report.std_drawn == pytest.approx(report.std_wanted, rel=noise, abs=1e-9)
    return {report.layer: (report.gain, report.std_wanted) for report in reports}


PLAIN = wanted(None)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({}, {}),
        ({"head.*": {"scale": 0.1}}, {"head": (1.0, 0.1 / math.sqrt(20))}),
        ({"head": {"gain": 2}}, {"head": (2.0, 2 / math.sqrt(20))}),
        ({r"body\.\d": {"gain": 1.0}}, {"body.0": (1.0, 1 / math.sqrt(40)), "body.2": (1.0, 1 / math.sqrt(50))}),
        ({"body.*": {"gain": 3}, "body.2": {"gain": "auto"}}, {"body.0": (3.0, 3 / math.sqrt(40))}),  # the later wins
        ({"body.0": {"scheme": "normal"}}, {"body.0": (None, 1.0)}),
        ({"body.0": {"scheme": xavier_uniform}}, {"body.0": (5 / 3, 5 / 3 * math.sqrt(2 / 90))}),
        ({"embedding": {"scale": 0.02}}, {"embedding": (None, 0.02)}),
        ({"embedding.weight": {"scheme": "xavier_normal"}}, {"embedding": (1.0, math.sqrt(2 / 41))}),
        ({"rnn.weight_hh.*": {"scheme": "scaled"}}, {"rnn.weight_hh_l0": (None, 0.2)}),
        ({"rnn": {"scale": 2}}, {f"rnn.weight_{k}_l0": (1.0, 2 / math.sqrt(n)) for k, n in (("ih", 60), ("hh", 20))}),
    ],
)
def test_what_an_override_reaches(overrides: dict, expected: dict) -> None:
    found = wanted(overrides)
    assert {k: v for k, v in found.items() if v != PLAIN[k]} == {
        k: (gain, pytest.approx(std, rel=1e-9)) for k, (gain, std) in expected.items()
    }


def test_scales_multiply() -> None:
    found = wanted({"head": {"scale": 0.5}}, output_scale=0.1, residual="head|body.2")
    assert found["head"][1] == pytest.approx(0.5 * 0.1 / math.sqrt(2 * 20))
    assert found["body.2"][1] == pytest.approx(math.sqrt(2) / math.sqrt(2 * 50))


def test_biases() -> None:
    model = Net()
    built = model.rnn.bias_hh_l0.clone()
    overrides = {"body.0": {"bias": 0.5}, r"rnn\.bias_hh.*": {"bias": None}, "head.bias": {"bias": 0.1}}
    initialize(model, kaiming_normal, overrides=overrides, generator=seeded())
    assert model.body[0].bias.std().item() == pytest.approx(0.5, rel=0.5)
    assert model.body[2].bias.count_nonzero() == 0
    assert torch.equal(model.rnn.bias_hh_l0, built)
    assert model.rnn.bias_ih_l0.count_nonzero() == 0
    assert model.head.bias.std().item() == pytest.approx(0.1, rel=0.6)


def test_a_tied_weight_goes_by_all_its_names() -> None:
    model = nn.Sequential(nn.Embedding(30, 8), nn.Linear(8, 8), nn.Linear(8, 30))
    model[2].weight = model[0].weight
    reports = initialize(model, kaiming_normal, overrides={"2": {"scale": 0.1}}, generator=seeded())
    assert (reports[0].layer, reports[0].std_wanted) == ("0", 0.1)
    assert model[2].weight.std().item() == pytest.approx(0.1, rel=0.2)


def test_gpt2s_residual_scaling() -> None:
    layers = 3
    block = nn.TransformerEncoderLayer(8, 2, 32, batch_first=True)
    plain, scaled = nn.TransformerEncoder(block, layers), nn.TransformerEncoder(block, layers)
    pattern = r"layers\.\d+\.(self_attn\.out_proj|linear2)"
    initialize(plain, kaiming_normal, generator=seeded())
    initialize(scaled, kaiming_normal, residual=pattern, generator=seeded())
    for name, value in scaled.state_dict().items():
        factor = 1 / math.sqrt(2 * layers) if name.endswith(("out_proj.weight", "linear2.weight")) else 1.0
        assert_close(value, factor * plain.state_dict()[name])


def test_auto_takes_the_residual_branches_that_a_model_names() -> None:
    class Named(Net):
        residual = r"body\.\d"

    model, pattern = Named(), Named.residual
    found = {choice: initialize(model, kaiming_normal, residual=choice) for choice in ("auto", pattern, None)}
    wanted = {choice: [report.std_wanted for report in reports] for choice, reports in found.items()}
    assert wanted["auto"] == wanted[pattern] != wanted[None]
    other = Net()
    other.residual = nn.Dropout()  # a module of that name is no pattern
    assert [report.std_wanted for report in initialize(other, kaiming_normal, residual="auto")] == wanted[None]


def test_the_stream_keeps_its_variance_with_residual_scaling() -> None:
    class Stream(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.branches = nn.ModuleList(nn.Linear(256, 256) for _ in range(30))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for branch in self.branches:
                x = x + branch(nn.functional.rms_norm(x, (256,)))
            return x

    model, x = Stream(), torch.randn(64, 256, generator=seeded())
    initialize(model, orthogonal, residual=r"branches\.\d+", generator=seeded(1))
    assert model(x).var().item() == pytest.approx(2, rel=0.2)  # 1 of the input, 30 of variance 1/30
    initialize(model, orthogonal, generator=seeded(1))
    assert model(x).var().item() == pytest.approx(31, rel=0.2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"overrides": {"haed.*": {"scale": 1}}},
            r"init\.overrides='haed\.\*': matches nothing in full\. Did you mean head",
        ),
        ({"overrides": {"body": {"scale": 1}}}, r"init\.overrides='body': matches nothing.*Accepted: .*body\.0"),
        ({"overrides": {"head": {"scal": 1}}}, r"'head': 'scal' is no field.*mean scale.*scheme, gain, scale, bias"),
        ({"overrides": {"head": {"scale": -1}}}, r"init\.overrides='head': scale=-1: expected a number of at least 0"),
        ({"overrides": {"head": {"gain": 0}}}, r"init\.overrides='head': gain=0: expected auto or a number above 0"),
        ({"overrides": {"head": {"bias": "x"}}}, r"init\.overrides='head': bias='x': expected a standard deviation"),
        ({"overrides": {"head": {"scheme": "kaiming"}}}, r"scheme='kaiming': unknown.*kaiming_normal.*xavier_uniform"),
        ({"overrides": {"head": {}}}, r"'head': \{\} given; expected a mapping with some of scheme"),
        ({"overrides": {"head": 3}}, r"'head': 3 given; expected a mapping"),
        ({"overrides": {"(": {"scale": 1}}}, r"init\.overrides='\(': expected a regular expression"),
        ({"overrides": {"head.weight": {"bias": 1}}}, r"'head\.weight': bias applies to no bias that it matches"),
        ({"overrides": {"head.bias": {"scale": 1}}}, r"'head\.bias': scale applies to no weight that it matches"),
        ({"residual": "heads"}, r"init\.residual='heads': matches nothing in full\. Did you mean head"),
        ({"residual": r"head\.weight"}, r"init\.residual=.*takes names of layers, not of parameters"),
        ({"residual": "["}, r"init\.residual='\[': expected a regular expression"),
    ],
)
def test_mistakes_show_before_anything_is_drawn(options: dict, message: str) -> None:
    model = Net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        initialize(model, kaiming_normal, **options)
    assert_close(dict(model.state_dict()), before, rtol=0, atol=0)
