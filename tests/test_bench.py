"""The benchmarks run; what they measure is for the full commands."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "bench.py"


@pytest.mark.parametrize("what", ["training", "normalization", "diagnostics", "models"])
def test_the_quick_form_runs_and_writes_its_measurements(what: str, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", SCRIPT, what, "--quick", "--json", tmp_path / "out.json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out.json").read_text())["results"]


@pytest.mark.parametrize("replicas", ["1", "2"])
def test_the_profile_of_a_step_runs(replicas: str) -> None:
    script = SCRIPT.with_name("profile_step.py")
    command = [sys.executable, "-W", "ignore", script, "--quick", "--replicas", replicas]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{replicas} network(s)" in done.stdout
    assert "matrix products" in done.stdout
