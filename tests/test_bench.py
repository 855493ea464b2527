"""The benchmarks run; what they measure is for the full commands."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "bench.py"


def test_the_quick_form_runs_everything_and_writes_its_measurements(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", SCRIPT, "--quick", "--json", tmp_path / "out.json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    measured = json.loads((tmp_path / "out.json").read_text())
    kinds = {"training", "lecture_deep", "models", "normalization", "diagnostics", "data", "startup"}
    assert {kind for kind in measured if measured[kind]["results"]} == kinds


@pytest.mark.parametrize("replicas", ["1", "2"])
def test_the_profile_of_a_step_runs(replicas: str) -> None:
    script = SCRIPT.with_name("profile_step.py")
    command = [sys.executable, "-W", "ignore", script, "--quick", "--replicas", replicas]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{replicas} network(s)" in done.stdout
    assert "matrix products" in done.stdout
