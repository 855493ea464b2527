"""Builds what a configuration describes: the language model, the Trainer, and batches that fit their intervals."""

from __future__ import annotations

import logging
import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import LightningDataModule
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import DictConfig, OmegaConf
from torch import nn

from bnlm.callbacks import Doctor, StepProgress
from bnlm.checkpoint import needs_sequences
from bnlm.checkpoint_io import AtomicCheckpointIO
from bnlm.config import ConfigError, build, refused
from bnlm.data import CharacterDataModule
from bnlm.init import report_table
from bnlm.interruption import StopOnSignal
from bnlm.language_model import LanguageModel
from bnlm.models import Replicas
from bnlm.replica_lists import of_each
from bnlm.replica_rates import with_rates
from bnlm.run_summary import show
from bnlm.sample_log import SampleLog

log = logging.getLogger("bnlm")

#: Training examples that the initialisation may look at.
INIT_EXAMPLES = 256
#: Optimizers that treat every element alone, so that replicas stacked in one tensor do not meet in it.
ELEMENTWISE = ("SGD", "Adam", "AdamW", "Adagrad", "Adamax", "NAdam", "RAdam", "RMSprop")


def build_data(cfg: DictConfig) -> CharacterDataModule:
    """Build the data in the form that the model says it needs: windows, or whole sequences.

    Raises:
        ConfigError: For values that the data refuse.
    """
    sequence = {"sequence": True} if needs_sequences(cfg.model) else {}  # data of a user's own may not know of it
    each = of_each(cfg)
    data = build(each[0].data, "data", **sequence)
    if len(each) > 1 and isinstance(data, CharacterDataModule):  # others are refused where the model is built
        data.seed = tuple(one.data.seed for one in each)
    return data


def build_language_model(
    cfg: DictConfig, data: CharacterDataModule, overrides: Sequence[str] = (), show_init: bool = False
) -> LanguageModel:
    """Build the model, initialise it and wrap it for training.

    Raises:
        ConfigError: For values that a model, an init, an optimizer or a scheduler refuses.
    """
    if cfg.replicas > 1:
        _check_replicas(cfg, data)
    first, *others = of_each(cfg)
    model, reports = _network(first, data)
    if others:
        networks = [model]
        for one in others:
            seed_everything(one.seed, workers=True, verbose=False)
            networks.append(_network(one, data)[0])
        seed_everything(first.seed, workers=True, verbose=False)
        model = Replicas(networks)
    clip = cfg.trainer.get("gradient_clip_val")
    config: Any = OmegaConf.to_container(cfg, resolve=True)
    if config["data"].get("path") is not None:
        config["data"]["path"] = str(Path(cfg.data.path).expanduser().absolute())
    config["data"]["context"] = data.context  # what the model was built for: of sequences, the data decide it
    configuration = {"config": config, "overrides": list(overrides), "characters": data.vocabulary.characters}
    optimizer, scheduler = build(first.optimizer, "optimizer"), build(cfg.scheduler, "scheduler")
    # Lightning makes these in the middle of `fit`; made here once, a value they refuse shows before it.
    try:
        if OmegaConf.is_list(cfg.optimizer.get("lr")):
            optimizer = with_rates(optimizer, list(cfg.optimizer.lr))
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
        compile=cfg.compile,
    )


def _network(cfg: DictConfig, data: CharacterDataModule) -> tuple[nn.Module, Any]:
    """Return one initialised network, and what was done to it."""
    normalization = build(cfg.normalization, "normalization")
    model: nn.Module = build(
        cfg.model, "model", vocab_size=data.vocab_size, context=data.context, normalization=normalization
    )
    initialize = build(cfg.init, "init")
    example, _ = data.some_examples(INIT_EXAMPLES)
    try:
        reports = initialize(model, example=example, generator=torch.Generator().manual_seed(cfg.seed))
    except (ValueError, TypeError) as error:
        raise refused("init", error) from error
    return model, reports


def _check_replicas(cfg: DictConfig, data: LightningDataModule) -> None:
    """Raise a ConfigError for what cannot be trained many at once."""
    given = f"replicas={cfg.replicas}"
    if needs_sequences(cfg.model):
        raise ConfigError(f"{given}: not for models over whole words ({cfg.model._target_}); take one over windows.")
    optimizer = str(cfg.optimizer.get("_target_")).rpartition(".")[2]
    if optimizer not in ELEMENTWISE:
        raise ConfigError(
            f"{given}: {optimizer} may mix the elements of a tensor, in which all replicas lie; accepted: "
            f"{', '.join(ELEMENTWISE)}."
        )
    if not isinstance(data, CharacterDataModule):  # whose minibatches know of replicas
        raise ConfigError(f"{given}: for data of bnlm.data only, not for {type(data).__name__}.")


def build_trainer(cfg: DictConfig, checkpoints: Path, stopper: StopOnSignal) -> Trainer:
    """Build the Trainer with the configuration's callbacks, monitors, logger and checkpoints.

    Raises:
        ConfigError: For values that one of them refuses.
    """
    callbacks: list[Callback] = [build(node, f"callbacks.{name}") for name, node in cfg.callbacks.items()]
    callbacks += [build(node, "diagnostics") for node in cfg.diagnostics.monitors.values()]
    for callback in callbacks:
        if isinstance(callback, Doctor) and callback.folder is None:
            callback.folder = str(checkpoints.parent)
    callbacks.append(stopper)
    if cfg.trainer.get("enable_progress_bar", True):
        callbacks.append(StepProgress())
    callbacks.append(SampleLog(of_each(cfg)[0].seed))
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
    trainer: Trainer = build(options, "trainer", callbacks=callbacks, logger=logger, plugins=[AtomicCheckpointIO()])
    if cfg.replicas > 1 and trainer.world_size > 1:
        raise ConfigError(
            f"replicas={cfg.replicas}: on one device only; trainer.devices={cfg.trainer.get('devices')} makes "
            f"{trainer.world_size} processes."
        )
    return trainer


def fit_batches_to_cadences(cfg: DictConfig) -> None:
    """Make `steps_per_batch` a divisor of every interval that must begin or end with a batch, in place.

    Raises:
        ConfigError: For intervals, clipping and accumulation that cannot be.
    """
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


def quieten() -> None:
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
