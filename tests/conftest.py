"""What several test modules share: small runs of the training command, and a look at what a test leaves behind."""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from torch import nn
from torch.nn.modules import module as hooks

from bnlm import train

Run = Callable[..., Path]


def left_behind(*roots: nn.Module) -> list[str]:
    """Name what an observer has not taken off."""
    found = [f"mode {mode}" for mode in torch.overrides._get_current_function_mode_stack()]
    found += ["global hook"] * (len(hooks._global_forward_hooks) + len(hooks._global_forward_pre_hooks))
    found += ["global hook"] * (len(hooks._global_backward_hooks) + len(hooks._global_backward_pre_hooks))
    found += ["global hook"] * len(hooks._global_forward_hooks_always_called)
    for root in roots:
        for path, module in root.named_modules():
            found += [f"hook on {path}"] * (len(module._forward_hooks) + len(module._forward_pre_hooks))
            found += [f"hook on {path}"] * (len(module._backward_hooks) + len(module._backward_pre_hooks))
    stance = torch._dynamo.eval_frame._stance.stance
    return found + ([] if stance == "default" else [f"stance {stance}"])


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    yield
    assert left_behind() == []


@pytest.fixture
def leftovers() -> Callable[..., list[str]]:
    return left_behind


@pytest.fixture(autouse=True, scope="session")
def _few_threads() -> None:
    torch.set_num_threads(1)  # these models are too small for more, and two tests may run beside each other


@pytest.fixture(autouse=True, scope="session")
def _compiled_code_is_kept_elsewhere() -> None:
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", f"{tempfile.gettempdir()}/bnlm_tests_compiled")


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
