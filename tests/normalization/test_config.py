"""Every option of the config group `normalization` builds a layer that works."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import nn

import bnlm.normalization
from bnlm.models import Block
from bnlm.normalization import BatchNorm, BatchRenorm, DynamicTanh, GhostBatchNorm, GroupNorm, LayerNorm, RMSNorm

CONF = Path(__file__).parents[2] / "conf"
BUILDS = {
    "none": nn.Identity,
    "batch": BatchNorm,
    "batch_lecture": BatchNorm,
    "batch_lecture_first": BatchNorm,
    "torch_batch": nn.BatchNorm1d,
    "layer": LayerNorm,
    "rms": RMSNorm,
    "group": GroupNorm,
    "ghost_batch": GhostBatchNorm,
    "batch_renorm": BatchRenorm,
    "dyt": DynamicTanh,
}


def build(option: str, num_features: int) -> nn.Module:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(overrides=[f"+normalization={option}"])
    return instantiate(config.normalization)(num_features)


@pytest.mark.parametrize("option", BUILDS)
def test_option_builds_its_layer(option: str) -> None:
    layer = build(option, 5)
    assert type(layer) is BUILDS[option]
    assert layer(torch.randn(4, 5)).shape == (4, 5)


def test_no_option_is_untested() -> None:
    assert {path.stem for path in (CONF / "normalization").glob("*.yaml")} == set(BUILDS)


def test_batch_and_torch_batch_agree() -> None:
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    ours, reference = (build(option, 5) for option in ("batch", "torch_batch"))
    torch.testing.assert_close(ours(x), reference(x))
    torch.testing.assert_close(ours.state_dict(), reference.state_dict())


@pytest.mark.parametrize("option", [option for option in BUILDS if option != "torch_batch"])
def test_a_block_treats_positions_as_more_examples(option: str) -> None:
    x = torch.randn(4, 3, 7, generator=torch.Generator().manual_seed(0))
    block = Block(7, 6, lambda features: build(option, features), nn.Tanh())
    for module in (block.train(), block.eval()):
        out = module(x)
        torch.testing.assert_close(out, module(x.reshape(12, 7)).view(4, 3, 6))
        assert out.std() > 0.1


@pytest.mark.parametrize("option", BUILDS)
def test_a_run_trains_with_it(option: str, run: Callable[..., Path]) -> None:
    folder = run("a", f"normalization={option}", "trainer.max_steps=20", "diagnostics.every_n_steps=10")
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["val/loss"] < summary["first_loss"]


@pytest.mark.parametrize(("option", "eps"), [("batch_lecture", 1e-5), ("batch_lecture_first", 0.0)])
def test_the_lectures_options_divide_by_the_unbiased_variance(option: str, eps: float) -> None:
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    expected = (x - x.mean(0)) / torch.sqrt(x.var(0, correction=1) + eps)
    torch.testing.assert_close(build(option, 5)(x), expected)


def test_every_public_name_exists() -> None:
    assert all(hasattr(bnlm.normalization, name) for name in bnlm.normalization.__all__)
