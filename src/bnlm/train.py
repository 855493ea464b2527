"""python -m bnlm.train [group=option] [key=value] [-m]: train, validate, test, and say how it went."""

from __future__ import annotations

import errno
import json
import logging
import math
import os
import re
import shutil
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import DictConfig, OmegaConf
from torch import nn

from bnlm.callbacks import StepProgress
from bnlm.checkpoint_io import AtomicCheckpointIO
from bnlm.config import CONF, ConfigError, build, check, refused
from bnlm.config_errors import explain, is_mistake
from bnlm.data import WordsDataModule
from bnlm.init import report_table
from bnlm.interruption import StopOnSignal
from bnlm.language_model import LanguageModel
from bnlm.resume import check_resumable, how_to_resume, with_checkpoint_overrides
from bnlm.run_summary import finite, print_summary, show, summarize
from bnlm.sample import sample

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
    _quieten()
    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)
    seed_everything(cfg.seed, workers=True, verbose=False)
    _fit_batches_to_cadences(cfg)
    saved = None if cfg.checkpoint is None else check_resumable(cfg)
    data: WordsDataModule = build(cfg.data, "data")
    if saved is not None:
        try:
            data.load_state_dict(saved["WordsDataModule"])  # Lightning would, in the middle of `fit`
        except ValueError as error:
            raise ConfigError(str(error)) from error
    model = build_language_model(cfg, data, overrides, show_init=saved is None)
    stopper = StopOnSignal()
    trainer = _build_trainer(cfg, checkpoints, stopper)

    started = time.monotonic()
    first_step = 0 if saved is None else saved["global_step"]
    trainer.fit(model, data, ckpt_path=cfg.checkpoint, weights_only=True)
    seconds = time.monotonic() - started
    last = checkpoints / "last.ckpt"
    trainer.save_checkpoint(last)
    if stopper.received is not None:
        print(f"\nStopped at step {trainer.global_step:,}. {how_to_resume(checkpoints)}", flush=True)
        raise Interrupted(128 + stopper.received)

    summary = summarize(cfg, model, data, trainer, seconds, first_step)
    best = checkpoints / "best.ckpt"
    if trainer.is_global_zero and (not best.exists() or summary["val/loss"] < summary["best_val_loss"]):
        # The last step lies between two validations, and is better than any of them.
        shutil.copyfile(last, checkpoints / "best.ckpt.new")
        os.replace(checkpoints / "best.ckpt.new", best)
        summary["best_val_loss"] = summary["val/loss"]
    if trainer.is_global_zero:
        try:
            words = sample(model.model, data.vocabulary, data.context, n=20, seed=cfg.seed)
        except ValueError as error:
            log.warning("No words were sampled: %s", error)
            words = []
        (run_folder / "samples.txt").write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
        (run_folder / "summary.json").write_text(
            json.dumps(finite(summary), indent=2, allow_nan=False) + "\n", encoding="utf-8"
        )
        print_summary(summary, words, run_folder, trainer)
    return summary


# --- building ---------------------------------------------------------------------------------------------------------


def build_language_model(
    cfg: DictConfig, data: WordsDataModule, overrides: Sequence[str] = (), show_init: bool = False
) -> LanguageModel:
    """Build the model, initialise it and wrap it for training.

    Raises:
        ConfigError: For values that a model, an init, an optimizer or a scheduler refuses.
    """
    normalization = build(cfg.normalization, "normalization")
    model: nn.Module = build(
        cfg.model, "model", vocab_size=data.vocab_size, context=data.context, normalization=normalization
    )
    initialize = build(cfg.init, "init")
    try:
        reports = initialize(model, generator=torch.Generator().manual_seed(cfg.seed))
    except (ValueError, TypeError) as error:
        raise refused("init", error) from error
    clip = cfg.trainer.get("gradient_clip_val")
    config: Any = OmegaConf.to_container(cfg, resolve=True)
    if config["data"].get("path") is not None:
        config["data"]["path"] = str(Path(cfg.data.path).expanduser().absolute())
    configuration = {"config": config, "overrides": list(overrides), "characters": data.vocabulary.characters}
    optimizer, scheduler = build(cfg.optimizer, "optimizer"), build(cfg.scheduler, "scheduler")
    # Lightning makes these in the middle of `fit`; made here once, a value they refuse shows before it.
    try:
        probe = optimizer(model.parameters())
    except (ValueError, TypeError, RuntimeError) as error:
        raise refused("optimizer", error, cfg.optimizer) from error
    try:
        scheduler(probe)
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise refused("scheduler", error, cfg.scheduler) from error
    if show_init and int(os.environ.get("LOCAL_RANK", "0")) == 0:
        show(report_table(reports))
    return LanguageModel(
        model,
        data.vocab_size,
        optimizer,
        scheduler,
        gradient_clip_val=clip,
        gradient_clip_algorithm=cfg.trainer.get("gradient_clip_algorithm", "norm"),
        configuration=configuration,
    )


def _build_trainer(cfg: DictConfig, checkpoints: Path, stopper: StopOnSignal) -> Trainer:
    callbacks: list[Callback] = [build(node, f"callbacks.{name}") for name, node in cfg.callbacks.items()]
    callbacks += [build(node, "diagnostics") for node in cfg.diagnostics.monitors.values()]
    callbacks.append(stopper)
    if cfg.trainer.get("enable_progress_bar", True):
        callbacks.append(StepProgress())
    callbacks.append(
        ModelCheckpoint(
            checkpoints,
            filename="best",
            monitor="val/loss",
            save_last=True,
            enable_version_counter=False,
            save_on_train_epoch_end=False,
        )
    )
    # Lightning clips in automatic optimization only; the LanguageModel clips by itself, at the same keys' word.
    options = OmegaConf.masked_copy(
        cfg.trainer, [key for key in cfg.trainer if key not in ("gradient_clip_val", "gradient_clip_algorithm")]
    )
    interval = options.get("val_check_interval")
    if isinstance(interval, int):
        options.val_check_interval = interval // cfg.steps_per_batch
    logger = build(cfg.logger, "logger")
    return build(options, "trainer", callbacks=callbacks, logger=logger, plugins=[AtomicCheckpointIO()])


def _fit_batches_to_cadences(cfg: DictConfig) -> None:
    """Make `steps_per_batch` a divisor of every interval that must begin or end with a batch."""
    trainer = cfg.trainer
    if trainer.get("accumulate_grad_batches", 1) != 1:
        raise ConfigError(
            f"trainer.accumulate_grad_batches={trainer.accumulate_grad_batches}: not supported with several optimizer "
            "steps per batch; raise data.batch_size instead."
        )
    algorithm = trainer.get("gradient_clip_algorithm", "norm")
    if algorithm not in ("norm", "value"):
        raise ConfigError(f"trainer.gradient_clip_algorithm={algorithm!r}: expected norm or value.")
    clip = trainer.get("gradient_clip_val")
    if clip is not None and not (isinstance(clip, int | float) and clip > 0):
        raise ConfigError(f"trainer.gradient_clip_val={clip!r}: expected a number above 0, or null for no clipping.")
    if clip is not None and str(trainer.get("precision")) in ("16", "16-mixed") and cfg.optimizer.get("fused"):
        raise ConfigError(
            "optimizer.fused=true: a fused optimizer unscales 16-bit gradients inside its step, after clipping; "
            "set optimizer.fused=false, or trainer.gradient_clip_val=null."
        )
    if trainer.get("max_steps", -1) < 0 and "T_max" in cfg.scheduler and cfg.scheduler.T_max < 1:
        raise ConfigError(f"scheduler.T_max={cfg.scheduler.T_max}: a cosine needs an end; set trainer.max_steps.")
    intervals = {}
    interval = trainer.get("val_check_interval")
    if isinstance(interval, int):
        if interval < 1:
            raise ConfigError(f"trainer.val_check_interval={interval}: expected at least 1 optimizer step.")
        intervals["trainer.val_check_interval"] = interval
    for name, node in cfg.diagnostics.monitors.items():
        every = node.get("every_n_steps")
        if not isinstance(every, int) or every < 1:
            raise ConfigError(f"diagnostics.every_n_steps={every!r}: expected a whole number of at least 1.")
        key = "diagnostics" if every == cfg.diagnostics.get("every_n_steps") else f"diagnostics.monitors.{name}"
        intervals[f"{key}.every_n_steps"] = every
    common = math.gcd(*intervals.values())
    wanted = cfg.steps_per_batch
    fitting = wanted if common == 0 else max(d for d in range(1, min(wanted, common) + 1) if common % d == 0)
    if fitting != wanted:
        log.log(
            logging.WARNING if fitting < 10 <= wanted else logging.INFO,
            "steps_per_batch is %d instead of %d, so that %s begin with a batch.",
            fitting,
            wanted,
            " and ".join(f"{key}={value}" for key, value in intervals.items()),
        )
        cfg.steps_per_batch = fitting
        if "steps_per_batch" in cfg.data:
            cfg.data.steps_per_batch = fitting


def _quieten() -> None:
    """Keep Lightning from telling what is meant to be so."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*The dirpath has changed.*",  # a resumed run writes to a folder of its own
        ".*GPU available but not used.*",
        ".*number of training batches .* is smaller than the logging interval.*",  # a batch holds many steps
        ".*LeafSpec.* is deprecated.*",  # Lightning 2.6 with torch 2.13
    ):
        warnings.filterwarnings("ignore", message)


# --- the command ------------------------------------------------------------------------------------------------------


def _run_name(number: Any, overrides: str) -> str:
    """Name a job's folder by the overrides that are its own, without characters that mean something in a path."""
    for common in sorted(sys.argv[1:], key=len, reverse=True):  # what all jobs of a sweep have says nothing of this one
        overrides = re.sub(rf"(^|,){re.escape(common)}(?=,|$)", "", overrides, flags=re.IGNORECASE)
    name = re.sub(r"[^\w=.,+\-\[\]]+", "_", overrides).strip("_,")
    return name if 0 < len(name) <= 150 else f"{number}_{name[:140]}".rstrip("_")


OmegaConf.register_new_resolver("run_name", _run_name, replace=True)


@hydra.main(config_path=str(CONF), config_name="train", version_base="1.3")
def _main(cfg: DictConfig) -> float:
    job = HydraConfig.get()
    try:
        summary = train(cfg, Path(job.runtime.output_dir), list(job.overrides.task))
    except Interrupted as interrupted:  # an exit ends a sweep too, which an exception would not
        sys.exit(interrupted.exit_code)
    except Exception as error:
        if job.mode == RunMode.MULTIRUN:
            log.error("This job failed, the sweep goes on: %s", error)
        elif isinstance(error, ConfigError) and not _TOLD_IN_FULL:
            _fail(str(error))
        raise
    return float(summary["val/loss"])


#: Whether the user asked Hydra for tracebacks.
_TOLD_IN_FULL = os.environ.get("HYDRA_FULL_ERROR") == "1"


def _fail(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def main() -> None:
    """Run the command line; configuration mistakes are one message and exit code 2."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # lets errors come through to where they are put into words
    try:
        sys.argv[1:] = with_checkpoint_overrides(sys.argv[1:])
        _main()
    except KeyboardInterrupt:
        print("\nInterrupted before there was anything to save.", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if _TOLD_IN_FULL or not is_mistake(error):
            raise
        _fail(str(error) if isinstance(error, ConfigError) else explain(error, sys.argv[1:]))


if __name__ == "__main__":
    main()
