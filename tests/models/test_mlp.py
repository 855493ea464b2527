"""The MLP: parameter counts of the lecture, the forward pass by hand, and its errors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn
from torch.testing import assert_close

import bnlm.models
from bnlm.models import MLP
from bnlm.normalization import BatchNorm

CONF = Path(__file__).parents[2] / "conf"


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_parameter_counts_of_the_lecture() -> None:
    assert count(MLP(27, 3, 10, [200])) == 11_897
    assert count(MLP(27, 3, 10, [200], normalization=BatchNorm)) == 12_097
    assert count(MLP(27, 3, 10, [100] * 5, normalization=BatchNorm, normalize_output=True)) == 47_024


@pytest.mark.parametrize("normalize_output", [False, True])
@pytest.mark.parametrize("sizes", [[6, 7], []])
def test_forward_matches_the_formula(sizes: list[int], normalize_output: bool) -> None:
    torch.manual_seed(0)
    model = MLP(11, 4, 3, sizes, "relu", BatchNorm, normalize_output).double()
    state = model.state_dict()
    idx = torch.randint(11, (5, 4))

    def norm(z: torch.Tensor, prefix: str) -> torch.Tensor:
        z = (z - z.mean(0)) / torch.sqrt(z.var(0, correction=0) + 1e-5)
        return z * state[f"{prefix}.weight"] + state[f"{prefix}.bias"]

    x = torch.cat([state["embedding.weight"][idx[:, place]] for place in range(4)], dim=1)
    for depth in range(len(sizes)):
        x = norm(x @ state[f"blocks.{depth}.linear.weight"].T, f"blocks.{depth}.normalization").clamp(min=0)
    x = x @ state["output.linear.weight"].T
    x = norm(x, "output.normalization") if normalize_output else x + state["output.linear.bias"]
    logits = model(idx)
    assert logits.shape == (5, 11)
    assert_close(logits, x, rtol=1e-10, atol=1e-10)


def test_without_normalization_nothing_normalises() -> None:
    model = MLP(11, 4, 3, [6], normalization=nn.Identity, normalize_output=True)
    assert {type(module) for module in model.modules()} == {
        MLP, nn.Embedding, nn.Sequential, bnlm.models.Block, nn.Linear, nn.Tanh,
    }  # fmt: skip


def test_each_layer_has_its_own_activation() -> None:
    model = MLP(11, 4, 3, [6, 7], "prelu")
    assert model.blocks[0].activation is not model.blocks[1].activation


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"vocab_size": 0}, r"model\.vocab_size=0: expected a whole number of at least 1"),
        ({"context": 0}, r"data\.context=0: expected a whole number of at least 1"),
        ({"n_embd": 2.5}, r"model\.n_embd=2\.5: expected a whole number of at least 1"),
        ({"n_embd": True}, r"model\.n_embd=True"),
        ({"hidden_sizes": 200}, r"model\.hidden_sizes=200: expected a list of whole numbers"),
        ({"hidden_sizes": [200, 0]}, r"model\.hidden_sizes=\[200, 0\]: expected a list"),
        ({"hidden_sizes": "200"}, r"model\.hidden_sizes='200': expected a list"),
        ({"activation": "tanhh"}, r"model\.activation='tanhh'"),
    ],
)
def test_values_are_checked(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MLP(**{"vocab_size": 11, "context": 4, **arguments})


@pytest.mark.parametrize(("option", "expected"), [("batch", 46_997), ("torch_batch", 46_997), ("none", 46_497)])
def test_the_config_builds_a_model(option: str, expected: int) -> None:
    normalization = instantiate(OmegaConf.load(CONF / "normalization" / f"{option}.yaml"))
    config = OmegaConf.load(CONF / "model" / "mlp.yaml")
    model = instantiate(config, vocab_size=27, context=3, normalization=normalization)
    # embedding 27·10, Linears 30·100 + 4·100² + 100·27 + 27, and per hidden layer 2·100 of BatchNorm or 100 biases
    assert count(model) == expected
    assert model(torch.zeros(2, 3, dtype=torch.long)).shape == (2, 27)


def test_every_public_name_exists() -> None:
    assert all(hasattr(bnlm.models, name) for name in bnlm.models.__all__)
