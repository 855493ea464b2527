"""Continues a run from its checkpoint: what must be as it was, and what to type."""

import logging
import shlex
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from bnlm.checkpoint import configuration_of, read_checkpoint
from bnlm.config import ConfigError

log = logging.getLogger("bnlm")


def check_resumable(cfg: DictConfig) -> dict[str, Any]:
    """Return the checkpoint to resume from, if this run can be its continuation."""
    checkpoint = read_checkpoint(cfg.checkpoint)
    config = configuration_of(checkpoint, cfg.checkpoint)["config"]
    now: Any = OmegaConf.to_container(cfg, resolve=True)
    for group in ("model", "normalization"):
        for key in sorted({*config[group], *now[group]}):
            if config[group].get(key) != now[group].get(key):
                raise ConfigError(
                    f"{group}.{key}={now[group].get(key)!r}: the checkpoint was trained with "
                    f"{config[group].get(key)!r}; resume it with that, or start afresh without checkpoint=."
                )
    saved = config.get("replicas", 1)
    if saved != cfg.replicas:
        raise ConfigError(f"replicas={cfg.replicas}: the checkpoint is of a run with replicas={saved}.")
    rates = config["optimizer"].get("lr"), now["optimizer"].get("lr")
    if isinstance(rates[0], list) != isinstance(rates[1], list):
        raise ConfigError(
            f"optimizer.lr={rates[1]!r}: the checkpoint was trained with {rates[0]!r}; one rate for all replicas and "
            "one for each do not go on as each other."
        )
    for group in ("optimizer", "scheduler", "init"):
        if config[group] != now[group]:
            log.warning("%s: differs from the checkpoint's, whose state is restored and goes on.", group)
    step, end = checkpoint["global_step"], cfg.trainer.get("max_steps", -1)
    if 0 <= end <= step:
        raise ConfigError(f"trainer.max_steps={end}: the checkpoint is at step {step} already; set a larger number.")
    return checkpoint


def with_checkpoint_overrides(arguments: list[str]) -> list[str]:
    """Add the overrides of the run that `checkpoint=` resumes, where the command line does not say otherwise."""
    path = next((a.partition("=")[2] for a in arguments if a.startswith("checkpoint=")), "")
    if path in ("", "null"):
        return arguments
    path = path.strip("'\"").replace("\\=", "=")
    given = {key_of(argument) for argument in arguments}
    stored = configuration_of(read_checkpoint(path), path)["overrides"]
    return [override for override in stored if key_of(override) not in given] + arguments


def key_of(override: str) -> str:
    """Return which key an override of the command line sets."""
    return override.lstrip("+~").partition("=")[0]


def how_to_resume(checkpoints: Path) -> str:
    last = checkpoints / "last.ckpt"
    if not last.exists():
        return "There is no checkpoint yet to resume from."
    argument = f"checkpoint={str(last).replace('=', chr(92) + '=')}"
    return f"Resume with:\n  python -m bnlm.train {shlex.quote(argument)}"
