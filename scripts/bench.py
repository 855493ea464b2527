"""How fast everything is, against code written here. Each kind runs in one process, in turns, on the same threads.

    python scripts/bench.py [KIND] [--pairs N] [--steps N] [--threads 1] [--quick] [--json FILE]

Kinds: `training` (the default) our loop against others, `lecture_deep` the whole of that experiment against the
notebook's loop, `models` every model against a loop in makemore.py's style, `normalization` every layer against
torch.nn's, `diagnostics` what the callbacks cost others, `data` the minibatches alone, `startup` the time to the first
step. `--quick` takes a few steps of one kind, or without KIND of all, to see that everything runs. The modules
`bench_KIND.py` say what is measured.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ["FORCE_COLOR"] = "1"  # rich draws its progress bar though nobody looks

from bench_data import bench_data
from bench_diagnostics import bench_diagnostics
from bench_lecture_deep import bench_lecture_deep
from bench_models import bench_models
from bench_normalization import bench_normalization
from bench_startup import bench_startup
from bench_training import bench_training

from bnlm.assembly import quieten

#: By kind: what measures it, and how many turns by default.
KINDS: dict[str, tuple[Callable[..., None], int]] = {
    "training": (bench_training, 5),
    "lecture_deep": (bench_lecture_deep, 1),
    "models": (bench_models, 9),
    "normalization": (bench_normalization, 25),
    "diagnostics": (bench_diagnostics, 25),
    "data": (bench_data, 9),
    "startup": (bench_startup, 5),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", nargs="?", choices=list(KINDS), help="training by default; with --quick all")
    parser.add_argument(
        "--pairs", type=int, help="turns; by default " + ", ".join(f"{k} {n}" for k, (_, n) in KINDS.items())
    )
    parser.add_argument("--steps", type=int, help="optimizer steps of a turn; training, lecture_deep")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads, the same for all")
    parser.add_argument("--quick", action="store_true", help="one short turn, to see that everything runs")
    parser.add_argument("--json", type=Path, help="also write all measurements here, by kind")
    options = parser.parse_args()
    quieten()
    kinds = [options.kind] if options.kind else list(KINDS) if options.quick else ["training"]
    measured: dict[str, Any] = {}
    for kind in kinds:
        bench, turns = KINDS[kind]
        if kind in ("training", "lecture_deep"):
            bench = partial(bench, steps=options.steps)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "measured.json"
            bench(turns if options.pairs is None else options.pairs, options.threads, options.quick, file)
            measured[kind] = json.loads(file.read_text())
    if options.json is not None:
        options.json.write_text(json.dumps(measured, indent=2))


if __name__ == "__main__":
    main()
