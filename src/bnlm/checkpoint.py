"""Reads checkpoints: safely, and with a clear word about files that are damaged or somebody else's."""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import nn

from bnlm.config import ConfigError
from bnlm.data import CharacterDataModule, TextDataModule, Vocabulary, WordsDataModule

DATA: dict[str, type[CharacterDataModule]] = {
    f"bnlm.data.{kind.__name__}": kind for kind in (WordsDataModule, TextDataModule)
}


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Return what a checkpoint of `bnlm.train` holds.

    Loaded with `weights_only=True`: nothing in the file is executed.
    Raises:
        ConfigError: If there is no such file, or it is damaged, or it is no checkpoint of ours.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        raise ConfigError(f"checkpoint={path}: this is a folder; expected a file such as checkpoints/last.ckpt in it.")
    if not path.exists():
        raise ConfigError(f"checkpoint={path}: there is no such file.")
    try:
        file = path.open("rb")
    except OSError as error:
        raise ConfigError(f"checkpoint={path}: {error.strerror or error}.") from error
    try:
        with file:
            checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise ConfigError(
            f"checkpoint={path}: cannot be read as a checkpoint; the file is damaged or of another kind "
            f"({(str(error).splitlines() or [type(error).__name__])[0]})."
        ) from error
    if not isinstance(checkpoint, dict) or not {"bnlm", "state_dict"} <= checkpoint.keys():
        raise ConfigError(f"checkpoint={path}: not written by bnlm.train; expected one of its .ckpt files.")
    return checkpoint


def configuration_of(checkpoint: dict[str, Any], path: str | Path) -> dict[str, Any]:
    """Return the run's configuration: `config` (resolved), `overrides`, `characters`.

    Raises:
        ConfigError: If the checkpoint was saved by a LanguageModel that had none.
    """
    configuration = checkpoint["bnlm"]["configuration"]
    if configuration is None:
        raise ConfigError(f"checkpoint={path}: holds no configuration; it was not written by bnlm.train.")
    return configuration


def load_model(path: str | Path) -> tuple[nn.Module, Vocabulary, dict[str, Any]]:
    """Return the trained model in evaluation mode, its vocabulary and the configuration it was trained with.

    Raises:
        ConfigError: See `read_checkpoint`; also for weights that do not fit the model they are said to be of.
    """
    checkpoint = read_checkpoint(path)
    configuration = configuration_of(checkpoint, path)
    config = OmegaConf.create(configuration["config"])
    if config.get("replicas", 1) > 1:
        beside = Path(path).expanduser().with_name("replica_0.ckpt")
        raise ConfigError(f"checkpoint={path}: holds {config.replicas} networks; give one of them, such as {beside}.")
    vocabulary = Vocabulary(configuration["characters"])
    model = build_model(config, len(vocabulary), path)
    weights = {
        key.removeprefix("model."): value for key, value in checkpoint["state_dict"].items() if key.startswith("model.")
    }
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ConfigError(f"checkpoint={path}: its weights do not fit its own model ({error}).") from error
    return model.eval(), vocabulary, configuration["config"]


def build_model(config: DictConfig, vocab_size: int, path: str | Path) -> nn.Module:
    """Build the model of a checkpoint's configuration, which may name nothing but modules.

    Raises:
        ConfigError: If a `_target_` in the file is no `nn.Module`: a file must not be able to run just any function.
    """
    for node in (config.model, config.normalization):
        for target in _targets(node):
            try:
                found = get_object(target)
            except Exception as error:
                raise ConfigError(
                    f"checkpoint={path}: its model is a {target}, which is not installed here."
                ) from error
            if not (isinstance(found, type) and issubclass(found, nn.Module)):
                raise ConfigError(f"checkpoint={path}: {target} is not an nn.Module; refused to call it.")
    normalization = instantiate(config.normalization)
    return instantiate(config.model, vocab_size=vocab_size, context=config.data.context, normalization=normalization)


def _targets(node: Any) -> list[str]:
    if isinstance(node, ListConfig):
        return [target for item in node for target in _targets(item)]
    if not isinstance(node, DictConfig):
        return []
    own = [str(node["_target_"])] if "_target_" in node else []
    return own + [target for key in node for target in _targets(node[key])]


def needs_sequences(model: Mapping[Any, Any]) -> bool:
    """Return whether the class that a model's configuration names says that it learns whole sequences."""
    return bool(getattr(get_object(str(model["_target_"])), "sequence", False))


def data_class(config: dict[str, Any], path: str | Path) -> type[CharacterDataModule]:
    """Return the class of the data that a checkpoint's run was trained on.

    Raises:
        ConfigError: If they are not one of ours.
    """
    target = config["data"]["_target_"]
    if target not in DATA:
        raise ConfigError(f"checkpoint={path}: its data come from {target}, which cannot be evaluated here.")
    return DATA[target]


def build_data(config: dict[str, Any], path: str | Path) -> CharacterDataModule:
    """Return the data that a checkpoint's run was trained on.

    Raises:
        ConfigError: If they are no longer there, or of another kind.
    """
    options: dict[str, Any] = {key: value for key, value in config["data"].items() if key != "_target_"}
    try:
        return data_class(config, path)(**options, sequence=needs_sequences(config["model"]))
    except ValueError as error:
        raise ConfigError(f"checkpoint={path}: {error}") from error
