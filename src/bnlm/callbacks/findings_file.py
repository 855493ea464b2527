"""Writes what the doctor found: `findings.json` in the run's folder, and a text in TensorBoard."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from bnlm.doctor import Finding, findings_markdown

log = logging.getLogger("bnlm")


@rank_zero_only
def write_findings(findings: Sequence[Finding], trainer: Trainer, folder: str | None = None) -> None:
    """Write the file; it is whole whenever it is there. What cannot be written is told, and training goes on.

    Args:
        findings: In the order in which they are to be read.
        trainer: Whose loggers tell where the file goes.
        folder: Where the file goes; None for the first logger's folder (its `log_dir`), or nowhere without one.
    """
    # Not `trainer.log_dir`: that talks to the other processes.
    folder = folder or next((d for d in (getattr(x, "log_dir", None) for x in trainer.loggers) if d), None)
    if folder is None:
        return
    text = json.dumps([finding.to_dict() for finding in findings], indent=2)
    try:
        if "://" in str(folder):  # a store
            with get_filesystem(folder).open(f"{folder}/findings.json", "w", encoding="utf-8") as file:
                file.write(text)
            return
        path = Path(folder) / "findings.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".json.partial")
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        log.warning(f"doctor: the findings could not be written to {folder}: {error}")


@rank_zero_only
def write_findings_text(findings: Sequence[Finding], trainer: Trainer) -> None:
    """Write the text to TensorBoard."""
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_text("doctor", findings_markdown(findings), trainer.global_step)
