"""How long a training command takes to start: `--help`, and the first optimizer step of the default run.

    python scripts/bench.py startup [--pairs 5] [--threads 1] [--quick] [--json FILE]

Each is a process of its own, timed from before it is started, after one that is not counted (it fills the caches of the
disk). A compiled run is timed to its first compiled step, once with an empty compile cache and then with what that left
there. Where the machine is busy, the processor time says more than the clock.
"""

import json
import os
import resource
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
#: The same with a compiled step, which is never the first; says how long it was compiled.
UNTIL_COMPILED_STEP = """
import os, runpy, sys
from bnlm.compiled_step import CompiledStep
call = CompiledStep.__call__
def once(step, *given):
    call(step, *given)
    print(f"compiled in {step.seconds}", flush=True)
    os._exit(0)
CompiledStep.__call__ = once
sys.argv[0] = "bnlm.train"
runpy.run_module("bnlm.train", run_name="__main__")
"""
Seconds = tuple[float, float, float]


def seconds_of(command: list[str], cache: str) -> Seconds:
    """Return the seconds until the process has ended, its processor time, and the seconds it says it compiled for."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCHINDUCTOR_CACHE_DIR": cache}
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment, check=False)
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"{command} failed:\n{done.stderr}")
    said = [line.rpartition(" ")[2] for line in done.stdout.splitlines() if line.startswith("compiled in")]
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, processor, float(said[0]) if said else 0.0


def bench_startup(turns: int, threads: int, quick: bool, json_file: Path | None) -> None:
    """Measure and print all; ``quick`` is one turn, without a warm-up and a compiled run."""
    turns = 1 if quick else turns
    results: dict[str, list[Seconds]] = {}
    with tempfile.TemporaryDirectory() as folder:
        run = [f"hydra.run.dir={folder}/run", f"threads={threads}"]
        first_step, compiled = ["-c", UNTIL_FIRST_STEP, *run], ["-c", UNTIL_COMPILED_STEP, *run, "compile=true"]
        commands = {
            "python -m bnlm.train --help": ["-m", "bnlm.train", "--help"],
            "python -m bnlm.train, to the first step": first_step,
            "... logger=csv diagnostics=off compile=false": [
                *first_step,
                "logger=csv",
                "diagnostics=off",
                "compile=false",  # the first step would be a compiled one, which no optimizer hears of
            ],
        }
        if not quick:
            for command in commands.values():
                seconds_of(command, folder)
            commands |= {
                "... compile=true, to a compiled step, empty cache": compiled,
                "... the same again": compiled,
            }
        for turn in range(turns):
            for name, command in commands.items():  # in this order: one fills the compile cache for the next
                results.setdefault(name, []).append(seconds_of(command, f"{folder}/cache{turn}"))
            print(f"turn {turn + 1} of {turns}", file=sys.stderr)
    table = Table("command", "seconds, median", "lowest .. highest", "processor time", "of it compiling")
    for name, found in results.items():
        seconds, processor, compiling = zip(*found, strict=True)
        table.add_row(
            name,
            f"{statistics.median(seconds):.2f}",
            f"{min(seconds):.2f} .. {max(seconds):.2f}",
            f"{statistics.median(processor):.2f}",
            f"{statistics.median(compiling):.2f}" if any(compiling) else "",
        )
    Console(width=120).print(table)
    print(f"{turns} turns, {threads} thread(s)")
    if json_file is not None:
        json_file.write_text(json.dumps({"turns": turns, "threads": threads, "results": results}, indent=2))
