"""What is not needed is not imported: a command answers sooner, and a library does not bring what it does not use.

Lightning itself imports torchmetrics, and with it matplotlib; what counts is what we add to that.
"""

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("tensorboard", "matplotlib", "torchmetrics")
SAY = f"\nimport sys; print('loaded:', *sorted(m for m in sys.modules if m.partition('.')[0] in {HEAVY!r}))"


def loaded(code: str, *arguments: str) -> set[str]:
    command = [sys.executable, "-W", "ignore", "-c", code + SAY, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


@pytest.mark.parametrize("package", ["", ".normalization", ".init", ".models", ".stats", ".probe", ".doctor", ".train"])
def test_libraries_import_none_of_them(package: str) -> None:
    assert loaded(f"import bnlm{package}") == set()


def test_help_imports_neither_them_nor_torch() -> None:
    code = "import sys, contextlib, bnlm.train\nwith contextlib.suppress(SystemExit): bnlm.train.main()"
    assert loaded(f"{code}\nassert 'torch' not in sys.modules", "--help") == set()


def test_a_run_without_diagnostics_and_tensorboard_imports_no_more_than_lightning(tmp_path: Path) -> None:
    code = "import bnlm.train; bnlm.train.main()"
    small = ["model.hidden_sizes=[5]", "trainer.max_steps=4", f"hydra.run.dir={tmp_path}"]
    found = loaded(code, "logger=csv", "diagnostics=off", *small)
    assert (tmp_path / "summary.json").is_file()
    new = found - loaded("import lightning.pytorch, torchmetrics.classification")
    assert {name for name in new if not name.startswith("torchmetrics")} == set()
