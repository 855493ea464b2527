"""The doctor's benchmark runs and scores; what it measures is for the full command."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "scripts" / "doctor_benchmark.py"


def test_it_runs(tmp_path: Path) -> None:
    options = ["--quick", "--processes", "1", "--json", tmp_path / "out.json"]
    finished = subprocess.run([sys.executable, SCRIPT, *options], capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr
    totals = json.loads((tmp_path / "out.json").read_text())["totals"]
    assert totals["healthy"] == 1
    assert totals["healthy_with_alarm"] == 0
    assert totals["cause_found"] == totals["cause_first"] == totals["sick"] == 3
