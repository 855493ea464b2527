"""Every model with every initialisation and every normalization takes steps, with the configurations as they are."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import get_object, instantiate

from bnlm.data import WordsDataModule
from bnlm.metrics import loss_of

CONF = Path(__file__).parents[2] / "conf"
SMALL = {"n_embd": 8, "n_hidden": 10, "hidden_sizes": [10], "n_layer": 1, "n_head": 2}
WORDS = ["ava", "mia", "emma", "olivia", "ada", "amelia", "eva", "noah", "liam", "b"] * 3


def options(group: str) -> list[str]:
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


@pytest.fixture(scope="module")
def configs() -> dict[str, dict[str, Any]]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return {
            group: {option: compose("train", [f"{group}={option}"])[group] for option in options(group)}
            for group in ("model", "init", "normalization")
        }


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, WordsDataModule]:
    path = tmp_path_factory.mktemp("data") / "words.txt"
    path.write_text("\n".join(WORDS), encoding="utf-8")
    return {sequence: WordsDataModule(str(path), sequence=sequence) for sequence in (False, True)}


@pytest.mark.parametrize("init", options("init"))
@pytest.mark.parametrize("model", options("model"))
def test_twenty_steps_with_finite_losses(
    model: str, init: str, configs: dict[str, dict[str, Any]], data: dict[bool, WordsDataModule]
) -> None:
    config = configs["model"][model]
    own = data[getattr(get_object(config._target_), "sequence", False)]
    inputs, targets = own.examples("train")
    for normalization, factory in configs["normalization"].items():
        torch.manual_seed(0)
        network = instantiate(
            config,
            vocab_size=own.vocab_size,
            context=own.context,
            normalization=instantiate(factory),
            **{key: value for key, value in SMALL.items() if key in config},
        )
        generator = torch.Generator().manual_seed(0)
        instantiate(configs["init"][init])(network, example=inputs[:16], generator=generator)
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
        for _ in range(20):
            drawn = torch.randint(len(targets), (8,), generator=generator)
            loss = loss_of(network(inputs[drawn]), targets[drawn])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            assert math.isfinite(loss.item()), normalization
