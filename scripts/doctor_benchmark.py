"""How often the doctor is right: it watches the labelled runs of `scripts/doctor_zoo`, healthy and sick.

    python scripts/doctor_benchmark.py [--half held|tune|all] [--only PATTERN] [--processes 2] [--quick] [--json FILE]

Limits were set on the half `tune`; what is reported is the half `held`. Prints, per rule, how many of its sick runs
were detected and after how many steps, and all that went wrong: sick runs whose true cause was not found or not named
first, healthy runs with a finding above `note`.
"""

import argparse
import json
import logging
import statistics
import time
import warnings
import zlib
from concurrent.futures import ProcessPoolExecutor
from fnmatch import fnmatch
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from doctor_zoo import Case, all_cases
from lightning import Trainer
from rich.console import Console
from rich.table import Table

from bnlm.callbacks import Doctor
from bnlm.doctor import RULES

#: Cases of the crash test.
QUICK = ("healthy/blobs-relu-torch-sgd", "initial_loss/names-tanh-x*", "saturated_activation/names-tanh-gain-*")


def half_of(name: str) -> str:
    """Which half a case belongs to: by its name, so that new cases leave the others where they are."""
    return "tune" if zlib.crc32(name.encode()) % 2 else "held"


def watch(name: str) -> dict[str, Any]:
    """Train one case under the doctor, and return what was found."""
    case = next(case for case in all_cases() if case.name == name)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for noisy in ("lightning.pytorch", "bnlm"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    torch.manual_seed(case.seed)
    run = case.make()
    doctor = Doctor(every_n_steps=case.every_n_steps, table=False)
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = Trainer(
        accelerator="cpu", max_steps=run.steps, max_epochs=-1, callbacks=[doctor], num_sanity_val_steps=0,
        **quiet, **run.trainer,
    )  # fmt: skip
    started = time.perf_counter()
    error = None
    try:
        trainer.fit(run.module, run.train, run.val)
    except ValueError as raised:  # a layer that refuses what it is given, such as BatchNorm a single value
        error = str(raised)
    findings = [finding.to_dict() for finding in doctor.findings]
    return {"name": name, "findings": findings, "seconds": time.perf_counter() - started, "error": error}


def score(cases: list[Case], results: dict[str, dict[str, Any]], console: Console) -> dict[str, Any]:
    """Print what was right and wrong, and return the totals."""
    table = Table("rule", "sick runs", "cause found", "named first", "median step", "false alarms in healthy runs")
    sick, healthy = [c for c in cases if c.causes], [c for c in cases if not c.causes]
    alarms = {case.name: [f for f in results[case.name]["findings"] if f["severity"] != "note"] for case in healthy}
    found: dict[str, bool] = {}
    first: dict[str, bool] = {}
    for case in sick:
        rules = [f["name"] for f in results[case.name]["findings"]]
        found[case.name] = any(cause in rules for cause in case.causes)
        above = [f["name"] for f in results[case.name]["findings"] if f["severity"] != "note"] or rules
        first[case.name] = bool(above) and above[0] in case.causes
    for rule, name in RULES.items():
        of_rule = [case for case in sick if case.causes[0] in name.split(" / ")]
        delays = [
            next(f["step"] for f in results[c.name]["findings"] if f["name"] in c.causes)
            for c in of_rule
            if found[c.name]
        ]
        false = sum(any(f["rule"] == rule for f in each) for each in alarms.values())
        table.add_row(
            f"{rule} {name}", str(len(of_rule)), str(sum(found[c.name] for c in of_rule)),
            str(sum(first[c.name] for c in of_rule)), f"{statistics.median(delays):.0f}" if delays else "-", str(false),
        )  # fmt: skip
    console.print(table)
    for case in sick:
        if not (found[case.name] and first[case.name]):
            says = ", ".join(f"{f['name']} {f['severity']} @{f['step']}" for f in results[case.name]["findings"])
            console.print(
                f"{'not first' if found[case.name] else 'MISSED'}: {case.name} {case.causes}: {says or 'nothing'}"
            )
    for name, findings in alarms.items():
        for f in findings:
            console.print(f"FALSE ALARM: {name}: {f['name']} {f['severity']} @{f['step']}: {f['message']}")
    critical = [case for case in sick if case.critical]
    totals = {
        "sick": len(sick),
        "cause_found": sum(found.values()),
        "cause_first": sum(first.values()),
        "critical": len(critical),
        "critical_found": sum(found[case.name] for case in critical),
        "healthy": len(healthy),
        "healthy_with_alarm": sum(map(bool, alarms.values())),
        "seconds": round(sum(each["seconds"] for each in results.values()), 1),
    }
    console.print(totals)
    return totals


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--half", choices=("held", "tune", "all"), default="held", help="which cases")
    parser.add_argument("--only", default="*", help="shell pattern of case names")
    parser.add_argument("--processes", type=int, default=2, help="runs at a time, each on one thread")
    parser.add_argument("--quick", action="store_true", help="a few cases, to see that everything runs")
    parser.add_argument("--json", type=Path, help="also write everything here")
    options = parser.parse_args()
    cases = [case for case in all_cases() if fnmatch(case.name, options.only)]
    if options.quick:
        cases = [case for case in cases if any(fnmatch(case.name, pattern) for pattern in QUICK)][:4]
    elif options.half != "all":
        cases = [case for case in cases if half_of(case.name) == options.half]
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        results = {each["name"]: each for each in pool.map(watch, [case.name for case in cases])}
    totals = score(cases, results, Console(width=150))
    if options.json is not None:
        options.json.write_text(json.dumps({"totals": totals, "results": results}, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
