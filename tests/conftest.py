"""What several test modules share: small runs of the training command, in this process."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra

from bnlm import train

Run = Callable[..., Path]


@pytest.fixture(autouse=True, scope="session")
def _few_threads() -> None:
    torch.set_num_threads(1)  # these models are too small for more, and two tests may run beside each other


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run `python -m bnlm.train ARGUMENTS` in this process; a failing command raises SystemExit."""

    def run(*arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", ["bnlm.train", *arguments])
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # restored afterwards: the command sets it
        GlobalHydra.instance().clear()
        train.main()

    return run


@pytest.fixture
def run(command: Callable[..., None], tmp_path: Path) -> Run:
    """Train with `arguments` in the folder `name` and return the folder. A small model unless told otherwise."""

    def train_in(name: str, *arguments: str) -> Path:
        small = ["model.hidden_sizes=[20,20]", "trainer.enable_progress_bar=false"]
        given = {argument.partition("=")[0] for argument in arguments}
        if "checkpoint" in given:  # brings its own
            small = small[1:]
        small = [argument for argument in small if argument.partition("=")[0] not in given]
        command(f"hydra.run.dir={tmp_path / name}", *small, *arguments)
        return tmp_path / name

    return train_in


@pytest.fixture(scope="session")
def makemore_names() -> Path:
    """The lecture's own list, where there is a copy of it; it may not be shipped."""
    default = Path(__file__).parents[2] / "shared" / "data" / "makemore_names.txt"
    path = Path(os.environ.get("BNLM_MAKEMORE_NAMES", default))
    if not path.is_file():
        pytest.skip("no copy of the lecture's list (BNLM_MAKEMORE_NAMES=FILE)")
    return path
