"""Finds the configuration, checks its values and builds what it describes; a mistake is one readable message."""

from __future__ import annotations

import difflib
import inspect
import re
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bnlm.replica_lists import LISTABLE, LISTED, settle_replicas

_PACKAGED = Path(__file__).parent / "conf"
#: The folder of the config groups: beside the package in an installed wheel, at the top of a source checkout.
CONF = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).parents[2] / "conf"


class ConfigError(ValueError):
    """A mistake of the user's; its text says which key, what was given and what is accepted."""


# --- values -----------------------------------------------------------------------------------------------------------


def check(cfg: DictConfig) -> None:
    """Check names, types and presence of every value against the signatures of what will be built.

    A whole float where a whole number is expected (`1e4`) becomes that number, in place. Where values are lists, one
    for each replica, `replicas` follows from them; of several replicas `seed` becomes a list.

    Raises:
        ConfigError: At the first value that does not fit.
    """
    for key in sorted(OmegaConf.missing_keys(cfg)):
        raise ConfigError(f"{key} is missing: give it as {key}=VALUE.")
    cfg.replicas = _checked(cfg.replicas, int, "replicas")
    if cfg.replicas < 1:
        raise ConfigError(f"replicas={cfg.replicas}: expected a whole number of at least 1.")
    cfg.seed = _checked_each(cfg.seed, int, "seed")
    if isinstance(cfg.seed, int) and cfg.seed < 2**32 < cfg.seed + cfg.replicas:
        raise ConfigError(f"replicas={cfg.replicas}: with seed={cfg.seed} the last one's seed exceeds {2**32 - 1}.")
    try:
        settle_replicas(cfg)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    each = "" if isinstance(cfg.seed, int) else " for each replica"
    for seed in [cfg.seed] if isinstance(cfg.seed, int) else cfg.seed:
        if not 0 <= seed < 2**32:
            raise ConfigError(f"seed={cfg.seed}: expected a whole number from 0 to {2**32 - 1}{each}.")
    try:
        OmegaConf.resolve(cfg)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{getattr(error, 'full_key', None) or 'configuration'}: {first_line(error)}") from error
    hints = {
        "steps_per_batch": int,
        "compile": bool | Literal["auto"],
        "threads": int | None,
    }
    for key, hint in (hints | {"checkpoint": str | None}).items():
        cfg[key] = _checked(cfg[key], hint, key)
    for key in ("steps_per_batch", "threads"):
        if cfg[key] is not None and cfg[key] < 1:
            raise ConfigError(f"{key}={cfg[key]}: expected a whole number of at least 1.")
    _check_node(cfg, "")


def _check_node(node: DictConfig, path: str) -> None:
    target = node.get("_target_")
    hints = _signature(target, path) if target is not None else None
    for key in map(str, node):
        name = f"{path}.{key}".lstrip(".")
        if isinstance(node[key], DictConfig):
            _check_node(node[key], name)
        elif hints is not None and not key.startswith("_"):
            if key not in hints:
                raise ConfigError(f"{name} is not an option of {target}.{accepted(key, hints)}")
            plain = OmegaConf.to_container(node[key]) if OmegaConf.is_config(node[key]) else node[key]
            node[key] = _checked_each(plain, hints[key], name) if name in LISTED else _checked(plain, hints[key], name)


class _Anything(dict[str, Any]):
    """The parameters of a callable that takes any keyword."""

    def __contains__(self, key: object) -> bool:
        return True

    def __missing__(self, key: str) -> Any:
        return Any


def _signature(target: str, path: str) -> Mapping[str, Any]:
    """Return the parameters of what `target` names, with their type hints."""
    try:
        function = get_object(target)
    except Exception as error:
        raise ConfigError(f"{path}._target_={target}: there is no such thing ({first_line(error)}).") from error
    parameters = inspect.signature(function).parameters
    try:
        hints = typing.get_type_hints(function.__init__ if inspect.isclass(function) else function)
    except Exception:  # hints that only a type checker can resolve
        hints = {}
    found = {name: hints.get(name, Any) for name, p in parameters.items() if p.kind is not p.VAR_KEYWORD}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return _Anything(found) if takes_any else found


_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", type(None): "null"}


def _checked(value: Any, hint: Any, name: str) -> Any:
    fits, converted = _fit(value, hint)
    if not fits:
        expected = _described(hint)
        lists = f" Lists, with a value for each replica, can be given for {', '.join(LISTABLE)}."
        hint_at_lists = isinstance(value, list) and "a list" not in expected
        raise ConfigError(f"{name}={_shown(value)}: expected {expected}.{lists if hint_at_lists else ''}")
    return converted


def _checked_each(value: Any, hint: Any, name: str) -> Any:
    """Check a value, or the values of a list with one for each replica."""
    values = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    return [_checked(one, hint, name) for one in values] if isinstance(values, list) else _checked(values, hint, name)


def _fit(value: Any, hint: Any) -> tuple[bool, Any]:
    """Return whether `value` is of the type `hint`, and the value to use."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        for option in sorted(get_args(hint), key=lambda option: option is not type(value)):  # an exact match first
            fits, converted = _fit(value, option)
            if fits:
                return True, converted
        return False, value
    if origin is Literal:
        return value in get_args(hint), value
    if hint is None or hint is type(None):
        return value is None, value
    if hint is int:
        if isinstance(value, float) and value.is_integer():
            return True, int(value)
        return isinstance(value, int) and not isinstance(value, bool), value
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool), value
    if hint is str or hint is bool:
        return isinstance(value, hint), value
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return _fit_sequence(value, hint)
    # Anything else is an object, which the thing that takes it knows best: plain values are not refused here, but
    # where an object is only one of several options, they belong to the others.
    return hint is Any or not isinstance(value, (int, float, str, bool, type(None), list)), value


def _fit_sequence(value: Any, hint: Any) -> tuple[bool, Any]:
    if not isinstance(value, (list, tuple)):
        return False, value
    options = get_args(hint)
    if get_origin(hint) is tuple and options and options[-1] is not Ellipsis:
        if len(options) != len(value):
            return False, value
        pairs = list(zip(value, options, strict=True))
    else:
        pairs = [(item, options[0] if options else Any) for item in value]
    fitted = [_fit(item, option) for item, option in pairs]
    return all(fits for fits, _ in fitted), [item for _, item in fitted]


def _described(hint: Any) -> str:
    if get_origin(hint) in (Union, types.UnionType):
        known = [_described(option) for option in get_args(hint)]
        return " or ".join(dict.fromkeys(text for text in known if text))
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, get_args(hint)))
    origin = get_origin(hint)
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return f"a list, each element {' or '.join(_described(o) for o in get_args(hint) if o is not Ellipsis)}"
    return _WORDS.get(hint, getattr(hint, "__name__", ""))


def _shown(value: Any) -> str:
    return "null" if value is None else repr(value)


# --- building ---------------------------------------------------------------------------------------------------------


def build(node: DictConfig, group: str, **kwargs: Any) -> Any:
    """Instantiate a config node; what its constructor refuses becomes a `ConfigError` that names `group`.

    Raises:
        ConfigError: For a ValueError, TypeError or OSError of the constructor's; other exceptions are bugs and pass.
    """
    try:
        return instantiate(node, **kwargs)
    except InstantiationException as error:
        cause = error.__cause__
        if cause is None:
            raise ConfigError(f"{group}: {first_line(error)}") from error
        if not isinstance(cause, (ValueError, TypeError, OSError)) and not _is_misconfiguration(cause):
            raise cause from None
        raise refused(group, cause, node) from error


def refused(group: str, error: BaseException, node: DictConfig | None = None) -> ConfigError:
    """Return the `ConfigError` for what a library refused; its text begins with a key, or with `group` and `node`."""
    text = str(error)
    if re.match(r"[a-z_]+(\.[a-z_]+)*=", text):  # ours: names its key already
        return ConfigError(text)
    given: Any = node or {}
    values = ", ".join(f"{key}={given[key]}" for key in given if not key.startswith("_"))
    return ConfigError(f"{group}: {text}" + (f" (given: {values})" if values else ""))


def _is_misconfiguration(error: BaseException) -> bool:
    return type(error).__name__ == "MisconfigurationException"  # Lightning's


# --- words -----------------------------------------------------------------------------------------------------------


def accepted(given: str, names: Sequence[str] | Mapping[str, Any]) -> str:
    """Return the end of a message: the closest of `names`, if any is close, and all of them."""
    names = [str(name) for name in names if name != "self"]
    close = difflib.get_close_matches(given, names, n=1)
    return (f" Did you mean {close[0]}?" if close else "") + f" Accepted: {', '.join(names)}."


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or its type."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
