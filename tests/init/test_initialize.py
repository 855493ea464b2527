"""What `initialize` does to a whole model, and the lecture's networks by their settings."""

from __future__ import annotations

import functools
import io
import math

import pytest
import torch
from rich.console import Console
from torch import nn
from torch.testing import assert_close

from bnlm.init import initialize, kaiming_normal, kaiming_uniform, normal, report_table, scaled, xavier_uniform
from bnlm.models import MLP
from bnlm.normalization import BatchNorm, LayerNorm

GAIN = 5 / 3


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shallow(normalization=None, normalize_output: bool = False) -> MLP:
    """Return the lecture's one-layer network."""
    return MLP(27, 3, 10, [200], "tanh", normalization, normalize_output)


def near(std: float, count: int):
    """Return a value to compare a sample's standard deviation with: 5 of its own standard errors wide."""
    return pytest.approx(std, rel=5 / math.sqrt(2 * count))


def test_same_seed_same_weights_whatever_was_there_before() -> None:
    models = [shallow(BatchNorm, True) for _ in range(2)]
    models[1](torch.zeros(4, 3, dtype=torch.long))  # moves the running statistics
    reports = [initialize(m, kaiming_normal, bias=0.01, output_scale=0.1, generator=seeded(5)) for m in models]
    assert_close(models[0].state_dict(), models[1].state_dict(), rtol=0, atol=0)
    assert reports[0] == reports[1]
    first = {name: value.clone() for name, value in models[0].state_dict().items()}
    initialize(models[0], kaiming_normal, bias=0.01, output_scale=0.1, generator=seeded(5))
    assert_close(dict(models[0].state_dict()), first, rtol=0, atol=0)
    initialize(models[0], kaiming_normal, bias=0.01, output_scale=0.1, generator=seeded(6))
    assert not torch.equal(models[0].embedding.weight, first["embedding.weight"])


def test_all_draws_come_from_the_generator() -> None:
    state = torch.get_rng_state()
    model = shallow()
    torch.set_rng_state(state)
    initialize(model, normal, bias=1.0, output_bias=1.0, generator=seeded())
    assert torch.equal(torch.get_rng_state(), state)


def test_reports_name_shape_fan_in_gain_and_both_stds() -> None:
    model = shallow()
    embedding, hidden, output = initialize(model, kaiming_normal, output_scale=0.1, generator=seeded())
    assert (embedding.layer, embedding.shape, embedding.fan_in, embedding.gain) == ("embedding", (27, 10), 1, None)
    assert (hidden.layer, hidden.shape, hidden.fan_in) == ("blocks.0.linear", (200, 30), 30)
    assert (output.layer, output.shape, output.fan_in) == ("output.linear", (27, 200), 200)
    assert (hidden.gain, output.gain) == (GAIN, 1.0)
    assert hidden.std_wanted == pytest.approx(GAIN / math.sqrt(30))
    assert output.std_wanted == pytest.approx(0.1 / math.sqrt(200))
    for report, weight in (
        (embedding, model.embedding.weight),
        (hidden, model.blocks[0].linear.weight),
        (output, model.output.linear.weight),
    ):
        assert report.std_drawn == pytest.approx(weight.std(correction=0).item(), rel=1e-6)
        assert report.std_drawn == near(report.std_wanted, weight.numel())


def test_gain_follows_the_activation_and_can_be_set_for_hidden_layers() -> None:
    model = nn.Sequential(
        nn.Linear(4, 5),
        nn.LayerNorm(5),
        nn.ReLU(),
        nn.Linear(5, 6),
        nn.Dropout(),
        nn.Sigmoid(),
        nn.Linear(6, 7),
        nn.Linear(7, 3),
    )
    assert [r.gain for r in initialize(model, kaiming_uniform)] == [math.sqrt(2), 1.0, 1.0, 1.0]
    assert [r.gain for r in initialize(model, kaiming_uniform, gain=3)] == [3.0, 3.0, 3.0, 1.0]
    ends_in_relu = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 6), nn.ReLU())
    assert [r.gain for r in initialize(ends_in_relu, kaiming_uniform)] == [GAIN, math.sqrt(2)]


def test_one_activation_module_can_serve_all_layers() -> None:
    relu = nn.ReLU()
    model = nn.Sequential(nn.Linear(4, 5), relu, nn.Linear(5, 6), relu, nn.Linear(6, 3))
    assert [r.gain for r in initialize(model, kaiming_uniform)] == [math.sqrt(2), math.sqrt(2), 1.0]


def test_convolutions_count_their_receptive_field() -> None:
    model = nn.Sequential(nn.Conv2d(4, 60, (3, 5)), nn.BatchNorm2d(60), nn.ReLU(), nn.Conv1d(60, 70, 2))
    reports = initialize(model, kaiming_normal, generator=seeded())
    assert [r.fan_in for r in reports] == [60, 120]
    assert reports[0].std_drawn == near(math.sqrt(2 / 60), 60 * 60)


def test_output_scale_goes_to_the_weight_that_decides() -> None:
    idx = torch.randint(27, (32, 3), generator=seeded())
    for model in (
        shallow(),
        shallow(BatchNorm),
        shallow(BatchNorm, True),
        shallow(LayerNorm, True),
        shallow(nn.BatchNorm1d, True),
    ):
        initialize(model, kaiming_normal, generator=seeded())
        logits = model(idx)
        initialize(model, kaiming_normal, output_scale=0.1, generator=seeded())
        assert_close(model(idx), 0.1 * logits, rtol=1e-5, atol=1e-6)


def test_output_scale_under_a_normalization_leaves_its_linear_alone() -> None:
    model = shallow(BatchNorm, True)
    report = initialize(model, kaiming_normal, output_scale=0.1, generator=seeded())[-1]
    assert_close(model.output.normalization.weight, torch.full((27,), 0.1))
    assert_close(model.blocks[0].normalization.weight, torch.ones(200))
    assert report.std_wanted == pytest.approx(1 / math.sqrt(200))
    assert report.std_drawn == near(report.std_wanted, 27 * 200)


def test_output_scale_needs_a_weight_to_scale() -> None:
    model = shallow(functools.partial(BatchNorm, affine=False), True)
    with pytest.raises(
        ValueError, match=r"init\.output_scale=0\.1: .*output\.linear has no weight.*init\.output_scale=1"
    ):
        initialize(model, kaiming_normal, output_scale=0.1)
    initialize(model, kaiming_normal)


def test_biases_are_drawn_zeroed_or_left() -> None:
    model = shallow()
    hidden, output = model.blocks[0].linear.bias, model.output.linear.bias
    built = output.clone()
    initialize(model, kaiming_normal, bias=0.5, output_bias=None, generator=seeded())
    assert hidden.std().item() == near(0.5, 200)
    assert torch.equal(output, built)
    initialize(model, kaiming_normal, output_bias=2.0, generator=seeded())
    assert hidden.count_nonzero() == 0
    assert output.std().item() == near(2.0, 27)


def test_without_a_scheme_the_model_stays_as_built() -> None:
    model = shallow(BatchNorm)
    model(torch.randint(27, (8, 3), generator=seeded()))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    reports = initialize(model, None, bias=None, output_bias=None)
    assert_close(dict(model.state_dict()), before, rtol=0, atol=0)
    assert [r.std_wanted for r in reports] == pytest.approx([1.0, 1 / math.sqrt(90), 1 / math.sqrt(600)])
    for report in reports:
        assert report.std_drawn == near(report.std_wanted, math.prod(report.shape))
    initialize(model, None, bias=None, output_bias=None, output_scale=0.5)
    assert_close(model.output.linear.weight, 0.5 * before["output.linear.weight"])


def test_embeddings_are_standard_normal_and_padding_is_zero() -> None:
    model = nn.Sequential(nn.Embedding(60, 40, padding_idx=2), nn.Linear(40, 3))
    report = initialize(model, xavier_uniform, generator=seeded())[0]
    weight = model[0].weight
    assert weight[2].count_nonzero() == 0
    assert torch.cat([weight[:2], weight[3:]]).std().item() == near(1.0, 59 * 40)
    assert report.std_wanted == 1.0


def test_tied_weights_are_drawn_once() -> None:
    model = nn.Sequential(nn.Embedding(30, 8), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 30))
    model[3].weight = model[0].weight
    untied = nn.Sequential(nn.Embedding(30, 8), nn.Linear(8, 8), nn.Tanh())
    reports = initialize(model, kaiming_normal, output_bias=0.5, generator=seeded())
    initialize(untied, kaiming_normal, generator=seeded())
    assert [r.layer for r in reports] == ["0", "1"]
    assert_close(model[0].weight, untied[0].weight, rtol=0, atol=0)
    assert_close(model[1].weight, untied[1].weight, rtol=0, atol=0)
    assert model[3].weight is model[0].weight
    assert model[3].bias.std().item() == near(0.5, 30)


def test_a_shared_layer_is_drawn_once() -> None:
    shared = nn.Linear(8, 8)
    model = nn.Sequential(shared, nn.Tanh(), shared, nn.Tanh(), nn.Linear(8, 3))
    assert [r.layer for r in initialize(model, kaiming_normal)] == ["0", "4"]


def test_a_model_of_one_embedding_is_its_own_output() -> None:
    model = nn.Embedding(40, 40)
    report = initialize(model, kaiming_normal, output_scale=0.1, generator=seeded())[0]
    assert report.std_wanted == pytest.approx(0.1)
    assert report.std_drawn == near(0.1, 1600)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gain": "fast"}, r"init\.gain='fast': expected auto or a number above 0"),
        ({"gain": 0}, r"init\.gain=0: expected auto or a number above 0"),
        ({"gain": True}, r"init\.gain=True: expected auto"),
        ({"output_scale": -1}, r"init\.output_scale=-1: expected a number of at least 0"),
        ({"output_scale": None}, r"init\.output_scale=None: expected a number of at least 0"),
        ({"bias": -0.1}, r"init\.bias=-0\.1: expected a standard deviation of at least 0, or null"),
        ({"bias": float("nan")}, r"init\.bias=nan"),
        ({"output_bias": "x"}, r"init\.output_bias='x': expected a standard deviation"),
    ],
)
def test_values_are_checked_before_anything_is_drawn(arguments: dict, message: str) -> None:
    model = shallow()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        initialize(model, kaiming_normal, **arguments)
    assert_close(dict(model.state_dict()), before, rtol=0, atol=0)


def test_a_lazy_layer_is_refused() -> None:
    model = nn.Sequential(nn.LazyLinear(3))
    with pytest.raises(ValueError, match=r"0 is lazy.*run the model once"):
        initialize(model, kaiming_normal)


def stds(model: MLP) -> tuple[float, float, float, float]:
    hidden, output = model.blocks[0].linear, model.output.linear
    return tuple(p.std().item() for p in (hidden.weight, hidden.bias, output.weight, output.bias))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"scheme": normal, "bias": 1.0, "output_bias": 1.0}, (1.0, 1.0, 1.0, 1.0)),
        ({"scheme": normal, "bias": 1.0, "output_scale": 0.01}, (1.0, 1.0, 0.01, 0.0)),
        ({"scheme": scaled, "bias": 0.01, "output_scale": 0.05}, (0.2, 0.01, 0.01, 0.0)),
        (
            {"scheme": kaiming_normal, "bias": 0.01, "output_scale": 0.01 * math.sqrt(200)},
            (GAIN / math.sqrt(30), 0.01, 0.01, 0.0),
        ),
    ],
    ids=["original", "softmax", "tanh", "kaiming"],
)
def test_the_lectures_shallow_networks(settings: dict, expected: tuple[float, ...]) -> None:
    model = shallow()
    initialize(model, generator=seeded(), **settings)
    for drawn, wanted, count in zip(stds(model), expected, (6000, 200, 5400, 27), strict=True):
        assert drawn == near(wanted, count)


def test_the_lectures_deep_network_starts_near_uniform_guessing() -> None:
    model = MLP(27, 3, 10, [100] * 5, "tanh", BatchNorm, normalize_output=True)
    initialize(model, kaiming_normal, output_scale=0.1, generator=seeded())
    for block in model.blocks:
        weight = block.linear.weight
        assert weight.std().item() == near(GAIN / math.sqrt(weight.size(1)), weight.numel())
    idx = torch.randint(27, (64, 3), generator=seeded(1))
    targets = torch.randint(27, (64,), generator=seeded(2))
    loss = nn.functional.cross_entropy(model(idx), targets).item()
    assert loss == pytest.approx(math.log(27), abs=0.05)  # logits of standard deviation 0.1


def test_the_naive_start_saturates_and_kaiming_does_not() -> None:
    idx = torch.randint(27, (64, 3), generator=seeded(1))
    saturated = {}
    for scheme, bias in ((normal, 1.0), (kaiming_normal, 0.01)):
        model = shallow()
        initialize(model, scheme, bias=bias, generator=seeded())
        hidden = model.blocks(model.embedding(idx).flatten(1))
        saturated[scheme] = (hidden.abs() > 0.97).float().mean().item()
    assert saturated[normal] > 0.5
    assert saturated[kaiming_normal] < 0.3


def test_table_shows_every_report() -> None:
    reports = initialize(shallow(), kaiming_normal, generator=seeded())
    page = io.StringIO()
    Console(file=page, width=120).print(report_table(reports))
    text = page.getvalue()
    for report in reports:
        line = next(line for line in text.splitlines() if f" {report.layer} " in line)
        assert " × ".join(map(str, report.shape)) in line
        assert f"{report.std_wanted:.4f}" in line
        assert f"{report.std_drawn:.4f}" in line
    assert "1.6667" in text
