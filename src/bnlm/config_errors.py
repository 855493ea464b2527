"""Puts into words what Hydra and OmegaConf raise while a configuration is composed."""

from __future__ import annotations

import re
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from bnlm.config import CONF, ConfigError, accepted, first_line


def is_mistake(error: BaseException) -> bool:
    """Return whether an error comes from the configuration: ours, Hydra's, or one raised inside Hydra or OmegaConf."""
    if isinstance(error, (ConfigError, HydraException, OmegaConfBaseException)):
        return True
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and not {"hydra", "omegaconf"}.isdisjoint(Path(frames[-1].filename).parts)


def explain(error: BaseException, overrides: Sequence[str]) -> str:
    """Return a readable message for an error that Hydra or OmegaConf raised while composing `overrides`."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file is not None:
        group, _, option = error.missing_cfg_file.rpartition("/")
        options = error.options or sorted(
            f.stem for f in (CONF / group).glob("*.yaml") if group and (CONF / group).is_dir()
        )
        if group and options:
            return f"{group}={option}: there is no such option.{accepted(option, options)}"
    match = re.search(r"Could not (?:override|append to config|delete from config)[^']*'([^'=]+)", str(error))
    if match:
        return _explain_key(match[1].lstrip("+~"), overrides)
    lines = [first_line(e) for e in (error, error.__cause__) if e is not None and str(e).strip()]
    return ": ".join(dict.fromkeys(lines)) or type(error).__name__


def _explain_key(key: str, overrides: Sequence[str]) -> str:
    """Say what stands beside a key that does not exist, given the groups that `overrides` choose."""
    node: Any = _composed([o for o in overrides if _chooses_group(o)])
    path = ""
    for part in key.split("."):
        if not isinstance(node, DictConfig) or part not in node:
            break
        path, node = f"{path}.{part}".lstrip("."), node[part]
    if not isinstance(node, DictConfig):
        return f"{key}: {path} is a single value, nothing lies below it."
    missing = key[len(path) :].lstrip(".").split(".")[0]
    names = [str(name) for name in node if not str(name).startswith("_") and str(name) != "hydra"]
    if not path:
        names = sorted({*names, *(p.name for p in CONF.iterdir() if p.is_dir() and p.name != "sweep")})
    where = f"{path} has no key {missing!r}" if path else f"there is no key or group {missing!r}"
    elsewhere = _options_with(path, missing)
    hint = f" (It belongs to {', '.join(elsewhere)}.)" if elsewhere else f" (A new key is added by +{key}=VALUE.)"
    return f"{key}: {where}.{accepted(missing, names)}{hint}"


def _options_with(group: str, key: str) -> list[str]:
    """Return the options `group=option` whose configuration has `key`."""
    if not group or "." in group or not (CONF / group).is_dir():
        return []
    options = [f"{group}={file.stem}" for file in sorted((CONF / group).glob("*.yaml"))]
    return [option for option in options if key in list(_composed([option])[group])]


def _chooses_group(override: str) -> bool:
    key, _, value = override.lstrip("+").partition("=")
    return (CONF / key / f"{value}.yaml").is_file()


def _composed(overrides: Sequence[str]) -> DictConfig:
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return compose("train", list(overrides))
    except HydraException:  # the choices do not go together; the defaults tell at least the usual keys
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return compose("train")
