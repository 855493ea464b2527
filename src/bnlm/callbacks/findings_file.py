"""Writes what the doctor found: `findings.json` in the run's folder, and a text in TensorBoard."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from bnlm.doctor import Finding, findings_markdown


@rank_zero_only
def write_findings(findings: Sequence[Finding], trainer: Trainer, folder: str | None = None) -> None:
    """Write findings; the file is whole whenever it is there.

    Args:
        findings: In the order in which they are to be read.
        trainer: Whose loggers are written to.
        folder: Where the file goes; None for the first logger's folder (its `log_dir`), or nowhere without one.
    """
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_text("doctor", findings_markdown(findings), trainer.global_step)
    # Not `trainer.log_dir`: that talks to the other processes.
    folder = folder or next((d for d in (getattr(x, "log_dir", None) for x in trainer.loggers) if d), None)
    if folder is not None:
        path = Path(folder) / "findings.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".json.partial")
        partial.write_text(json.dumps([finding.to_dict() for finding in findings], indent=2), encoding="utf-8")
        os.replace(partial, path)
