"""`key=value` arguments of the small commands, typed by a dataclass."""

import dataclasses
import difflib
import json
from collections.abc import Sequence
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from bnlm.config import ConfigError

T = TypeVar("T")
_WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


def parse(options: type[T], arguments: Sequence[str]) -> T:
    """Return the dataclass `options` filled from `key=value` arguments.

    A text is taken as it is, without quoting. A list is written as `[a,b]`, or as JSON where its texts have commas;
    `--key` is short for `key=true`.

    Raises:
        ConfigError: For an unknown key, a value of the wrong type, or a missing one.
    """
    assert dataclasses.is_dataclass(options)
    hints = get_type_hints(options)
    values: dict[str, Any] = {}
    for argument in arguments:
        if argument.startswith("--") and hints.get(argument[2:]) is bool:
            argument = f"{argument[2:]}=true"
        key, equals, text = argument.partition("=")
        if not equals or key not in hints:
            close = difflib.get_close_matches(key, hints, n=1)
            hint = f" Did you mean {close[0]}=?" if close else ""
            raise ConfigError(f"{argument}: not an option.{hint} Accepted: {', '.join(f'{k}=...' for k in hints)}.")
        values[key] = _convert(key, text, hints[key])
    for field in dataclasses.fields(options):
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and field.name not in values:
            raise ConfigError(f"{field.name} is missing: give it as {field.name}=VALUE.")
    return options(**values)


def usage(options: type[Any], command: str, purpose: str) -> str:
    """Return the text of `--help`, from the fields' metadata."""
    lines = [f"usage: python -m {command} key=value ...", "", purpose, ""]
    for field in dataclasses.fields(options):
        default = "" if field.default is dataclasses.MISSING else f" (default: {_shown(field.default)})"
        lines.append(f"  {field.name:12} {field.metadata['help']}{default}")
    return "\n".join(lines)


def _convert(key: str, text: str, hint: Any) -> Any:
    options: tuple[Any, ...] = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if type(None) in options and text.lower() in ("null", "none"):
        return None
    kind = next(option for option in options if option is not type(None))
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ConfigError(f"{key}={text}: expected true or false.")
        return text.lower() == "true"
    if kind == list[str]:
        return _convert_list(key, text)
    try:
        return kind(text)
    except ValueError:
        accepted = _WORDS[kind] + (" or null" if type(None) in options else "")
        raise ConfigError(f"{key}={text}: expected {accepted}.") from None


def _convert_list(key: str, text: str) -> list[str]:
    expected = f"expected a list of texts, such as {key}=[ada,grace]."
    if not (text.startswith("[") and text.endswith("]")):
        raise ConfigError(f"{key}={text}: {expected}")
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not found or not all(isinstance(item, str) for item in found):  # not JSON, or names like true and null
        found = [item.strip() for item in text[1:-1].split(",")]
    if found == [""]:
        raise ConfigError(f"{key}={text}: {expected}")
    return found


def _shown(value: Any) -> str:
    return "null" if value is None else repr(value) if isinstance(value, str) else str(value)
