"""How long a training command takes to start: `--help`, and the first optimizer step of the default run.

    python scripts/bench.py startup [--pairs 5] [--threads 1] [--quick] [--json FILE]

Each is a process of its own, timed from before it is started, after one that is not counted (it fills the caches of the
disk). A compiled run is timed to its first compiled step too, once with an empty compile cache and then with what that
left there: the first step of a run is an eager one.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

#: Runs the command, and leaves as soon as the step was taken.
UNTIL_FIRST_STEP = """
import os, runpy, sys
from torch.optim.optimizer import register_optimizer_step_post_hook
register_optimizer_step_post_hook(lambda *_: os._exit(0))
sys.argv[0] = "bnlm.train"
runpy.run_module("bnlm.train", run_name="__main__")
"""
UNTIL_FIRST_COMPILED_STEP = """
import os, runpy, sys
from bnlm.compiled_step import CompiledStep
call = CompiledStep.__call__
CompiledStep.__call__ = lambda *args: (call(*args), print(f"compiled in {args[0].seconds}"), sys.stdout.flush(), os._exit(0))
sys.argv[0] = "bnlm.train"
runpy.run_module("bnlm.train", run_name="__main__")
"""


def seconds_of(command: list[str], cache: str) -> tuple[float, float]:
    """Return the seconds until the process has ended, and those it says it compiled for."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCHINDUCTOR_CACHE_DIR": cache}
    started = time.perf_counter()
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError(f"{command} failed:\n{done.stderr}")
    said = [line.rpartition(" ")[2] for line in done.stdout.splitlines() if line.startswith("compiled in")]
    return seconds, float(said[0]) if said else 0.0


def bench_startup(turns: int, threads: int, quick: bool, json_file: Path | None) -> None:
    """Measure and print all; ``quick`` is one turn and no warm-up, to see that everything runs."""
    with tempfile.TemporaryDirectory() as folder:
        run = [f"hydra.run.dir={folder}/run", f"threads={threads}"]
        first_step, compiled = ["-c", UNTIL_FIRST_STEP, *run], ["-c", UNTIL_FIRST_COMPILED_STEP, *run, "compile=true"]
        commands = {
            "python -m bnlm.train --help": ["-m", "bnlm.train", "--help"],
            "python -m bnlm.train, to the first step": first_step,
            "... logger=csv diagnostics=off": [*first_step, "logger=csv", "diagnostics=off"],
            "... compile=true, to the first compiled step": compiled,
        }
        turns = 1 if quick else turns
        results: dict[str, dict[str, list[float]]] = {name: {"seconds": [], "compiling": []} for name in commands}
        fresh = {"seconds": [], "compiling": []}
        for turn in range(turns):
            cache = f"{folder}/cache{turn}"
            if not quick or turn:
                for command in commands.values() if turn == 0 else []:
                    seconds_of(command, f"{folder}/warm")
            first = seconds_of(compiled, cache)
            fresh["seconds"].append(first[0])
            fresh["compiling"].append(first[1])
            for name, command in commands.items():
                found = seconds_of(command, cache)
                results[name]["seconds"].append(found[0])
                results[name]["compiling"].append(found[1])
            print(f"turn {turn + 1} of {turns}", file=sys.stderr)
    results["... the same with an empty compile cache"] = fresh
    table = Table("command", "seconds, median", "lowest .. highest", "of it compiling")
    for name, values in results.items():
        seconds = values["seconds"]
        table.add_row(
            name,
            f"{statistics.median(seconds):.2f}",
            f"{min(seconds):.2f} .. {max(seconds):.2f}",
            f"{statistics.median(values['compiling']):.2f}" if any(values["compiling"]) else "",
        )
    Console(width=110).print(table)
    print(f"{turns} turns, {threads} thread(s)")
    if json_file is not None:
        json_file.write_text(json.dumps({"turns": turns, "threads": threads, "results": results}, indent=2))
