"""Every option of the config group `init` initialises a model, with the scales it promises."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig

import bnlm.init
from bnlm.models import MLP, Transformer

CONF = Path(__file__).parents[2] / "conf"
GAIN = 5 / 3
EXAMPLE = torch.randint(27, (64, 3), generator=torch.Generator().manual_seed(1))
EXPECTED = {  # standard deviation of hidden weight, hidden bias, output weight, output bias; 30 -> 200 tanh -> 27
    "normal": (1.0, 1.0, 1.0, 1.0),
    "scaled": (0.2, 0.01, 0.01, 0.0),
    "xavier_uniform": (GAIN * math.sqrt(2 / 230), 0.0, 0.1 * math.sqrt(2 / 227), 0.0),
    "xavier_normal": (GAIN * math.sqrt(2 / 230), 0.0, 0.1 * math.sqrt(2 / 227), 0.0),
    "kaiming_uniform": (GAIN / math.sqrt(30), 0.0, 0.1 / math.sqrt(200), 0.0),
    "kaiming_normal": (GAIN / math.sqrt(30), 0.0, 0.1 / math.sqrt(200), 0.0),
    "orthogonal": (GAIN / math.sqrt(200), 0.0, 0.1 / math.sqrt(200), 0.0),
    "lsuv": (None, 0.0, None, 0.0),  # the data decides: below
    "torch": (1 / math.sqrt(90), 1 / math.sqrt(90), 1 / math.sqrt(600), 1 / math.sqrt(600)),
}


def load(option: str, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(overrides=[f"+init={option}", *overrides]).init


@pytest.mark.parametrize("option", EXPECTED)
def test_option_draws_its_scales(option: str) -> None:
    torch.manual_seed(0)  # for `torch`, which leaves what the model drew
    model = MLP(27, 3, 10, [200])
    instantiate(load(option))(model, example=EXAMPLE, generator=torch.Generator().manual_seed(0))
    hidden, output = model.blocks[0].linear, model.output.linear
    for parameter, std in zip((hidden.weight, hidden.bias, output.weight, output.bias), EXPECTED[option], strict=True):
        if std is None:
            continue
        assert parameter.std().item() == pytest.approx(std, rel=5 / math.sqrt(2 * parameter.numel()))


@pytest.mark.parametrize("option", [name for name in EXPECTED if name.endswith("uniform")])
def test_uniform_options_are_uniform(option: str) -> None:
    model = MLP(27, 3, 10, [200])
    report = instantiate(load(option))(model, generator=torch.Generator().manual_seed(0))[1]
    assert model.blocks[0].linear.weight.abs().max().item() <= math.sqrt(3) * report.std_wanted


def test_lsuv_gives_the_hidden_layer_variance_1_and_the_output_its_scale() -> None:
    model = MLP(27, 3, 10, [200])
    reports = instantiate(load("lsuv"))(model, example=EXAMPLE, generator=torch.Generator().manual_seed(0))
    hidden = model.blocks[0].linear(model.embedding(EXAMPLE).flatten(1))
    assert hidden.var(correction=0).item() == pytest.approx(1, abs=0.01)
    assert model(EXAMPLE).var(correction=0).item() == pytest.approx(0.1**2, rel=0.01)
    assert [report.std_wanted for report in reports] == [1.0, None, None]
    with pytest.raises(ValueError, match=r"init\.rescale=.*needs data"):
        instantiate(load("lsuv"))(model)


def test_the_new_keys_arrive() -> None:
    overrides = ["init.scheme.mode=fan_out", "init.residual=blocks.*", "init.overrides={output.*:{scale:0.5,bias:0.3}}"]
    model = MLP(27, 3, 10, [200, 50])
    reports = instantiate(load("kaiming_normal", *overrides))(model)
    wanted = [1.0, GAIN / math.sqrt(200 * 2), GAIN / math.sqrt(50 * 2), 0.1 * 0.5 / math.sqrt(27)]
    assert [report.std_wanted for report in reports] == pytest.approx(wanted)
    assert model.output.linear.bias.count_nonzero() == 27


def test_the_transformers_residual_branches_are_scaled_unless_told_otherwise() -> None:
    model = Transformer(27, 5, n_layer=3, n_head=2, n_embd=8)
    for overrides, factor in (([], 1 / math.sqrt(6)), (["init.residual=null"], 1.0)):
        reports = instantiate(load("scaled", *overrides))(model)
        wanted = {report.layer: report.std_wanted for report in reports}
        for block in range(3):
            assert wanted[f"blocks.{block}.attention.projection"] == pytest.approx(0.2 * factor)
            assert wanted[f"blocks.{block}.mlp.projection"] == pytest.approx(0.2 * factor)
            assert wanted[f"blocks.{block}.attention.qkv"] == 0.2


def test_no_option_is_untested() -> None:
    assert {path.stem for path in (CONF / "init").glob("*.yaml")} == set(EXPECTED)


def test_keys_can_be_overridden() -> None:
    overrides = ["init.gain=2", "init.output_scale=1", "init.bias=null", "init.output_bias=0.3"]
    model = MLP(27, 3, 10, [200])
    built = model.blocks[0].linear.bias.clone()
    reports = instantiate(load("kaiming_normal", *overrides))(model)
    assert (reports[1].gain, reports[2].std_wanted) == (2.0, pytest.approx(1 / math.sqrt(200)))
    assert torch.equal(model.blocks[0].linear.bias, built)
    assert model.output.linear.bias.count_nonzero() == 27
    assert instantiate(load("scaled", "init.scheme.factor=0.4"))(model)[1].std_wanted == 0.4


def test_every_public_name_exists() -> None:
    assert all(hasattr(bnlm.init, name) for name in bnlm.init.__all__)
