"""One training run: builds what a configuration describes, fits it, evaluates it, writes the run folder."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import seed_everything
from omegaconf import DictConfig

from bnlm.assembly import build_data, build_language_model, build_trainer, fit_batches_to_cadences, quieten
from bnlm.cache_folder import keep_compiled_code
from bnlm.callbacks import CriticalFindingError
from bnlm.config import ConfigError, check
from bnlm.data import WordsDataModule
from bnlm.doctor import check as diagnose
from bnlm.interruption import StopOnSignal
from bnlm.metrics import loss_of
from bnlm.models import first_of
from bnlm.replica_checkpoints import write_replicas
from bnlm.replica_lists import of_each
from bnlm.resume import check_resumable, how_to_resume
from bnlm.run_summary import finite, print_summary, summarize
from bnlm.sample import lines, origins, sample

log = logging.getLogger("bnlm")


class Interrupted(Exception):
    """Training was stopped by a signal; what it had is saved."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


def train(cfg: DictConfig, run_folder: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Build what `cfg` describes, fit it, evaluate it, write the run folder and return the summary.

    Args:
        cfg: The composed configuration; completed in place.
        run_folder: Where everything is written.
        overrides: What was given on the command line; kept in the checkpoints for resuming.
    Raises:
        ConfigError: For any mistake in the configuration, before training; and when the disk is full.
        Interrupted: After SIGINT or SIGTERM, when `last.ckpt` is saved.
    """
    try:
        return _train(cfg, run_folder, run_folder / "checkpoints", overrides)
    except (KeyboardInterrupt, SystemExit):  # a second Ctrl-C, which Lightning turns into an exit, or one outside `fit`
        print(f"\nInterrupted. {how_to_resume(run_folder / 'checkpoints')}", flush=True)
        raise Interrupted(130) from None
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        resume = how_to_resume(run_folder / "checkpoints")
        raise ConfigError(f"no space left on the device; what was written before is kept. {resume}") from error


def _train(cfg: DictConfig, run_folder: Path, checkpoints: Path, overrides: Sequence[str]) -> dict[str, Any]:
    check(cfg)
    quieten()
    keep_compiled_code()
    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)
    seed = of_each(cfg)[0].seed
    seed_everything(seed, workers=True, verbose=False)
    fit_batches_to_cadences(cfg)
    saved = None if cfg.checkpoint is None else check_resumable(cfg)
    data = build_data(cfg)
    if saved is not None:
        try:
            data.load_state_dict(saved.get(type(data).__qualname__, {}))  # Lightning would, in the middle of `fit`
        except ValueError as error:
            raise ConfigError(str(error)) from error
    model = build_language_model(cfg, data, overrides, show_init=saved is None)
    stopper = StopOnSignal()
    trainer = build_trainer(cfg, checkpoints, stopper)

    started = time.monotonic()
    first_step = 0 if saved is None else saved["global_step"]
    if cfg.diagnostics.get("preflight") and saved is None:
        diagnose(first_of(model.model), data.some_examples(data.batch_size), loss_of)
    try:
        trainer.fit(model, data, ckpt_path=cfg.checkpoint, weights_only=True)
    except CriticalFindingError as error:
        raise ConfigError(f"diagnostics.on_critical=raise: {error}") from error
    seconds = time.monotonic() - started
    last = checkpoints / "last.ckpt"
    trainer.save_checkpoint(last)
    if stopper.received is not None:
        print(f"\nStopped at step {trainer.global_step:,}. {how_to_resume(checkpoints)}", flush=True)
        raise Interrupted(128 + stopper.received)

    if cfg.replicas > 1:
        write_replicas(last)
    summary = summarize(cfg, model, data, trainer, seconds, first_step)
    best = checkpoints / "best.ckpt"
    if trainer.is_global_zero and summary["best_step"] == trainer.global_step:
        # It may lie between two validations, and be better than any of them.
        shutil.copyfile(last, checkpoints / "best.ckpt.new")
        os.replace(checkpoints / "best.ckpt.new", best)
    if trainer.is_global_zero:
        try:
            start = data.start_id(data.vocabulary)
            words = sample(first_of(model.model), data.vocabulary, data.context, n=20, seed=seed, start=start)
        except ValueError as error:
            log.warning("No words were sampled: %s", error)
            words = []
        found = origins(words, data.words) if isinstance(data, WordsDataModule) else [None] * len(words)
        (run_folder / "samples.txt").write_text(lines(words, found), encoding="utf-8")
        (run_folder / "summary.json").write_text(
            json.dumps(finite(summary), indent=2, allow_nan=False) + "\n", encoding="utf-8"
        )
        print_summary(summary, words, run_folder, trainer)
    return summary
