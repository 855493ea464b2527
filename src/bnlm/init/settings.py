"""Settings of single layers: `init.overrides` by regular expression, and the scale of residual branches."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from bnlm.init.schemes import SCHEMES

FIELDS = ("scheme", "gain", "scale", "bias")
Overrides = Mapping[str, Mapping[str, Any]]
"""Regular expression -> settings: scheme (name or callable), gain, scale (a factor), bias (a standard deviation)."""


def is_number(value: Any) -> bool:
    """Return whether ``value`` is a finite number, and no truth value."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def check_gain(key: str, gain: Any) -> None:
    """Raise a ValueError unless ``gain`` is ``auto`` or above 0."""
    if gain != "auto" and not (is_number(gain) and gain > 0):
        raise ValueError(f"{key}={gain!r}: expected auto or a number above 0.")


def check_size(key: str, value: Any, expected: str) -> None:
    """Raise a ValueError unless ``value`` is a number of at least 0."""
    if not (is_number(value) and value >= 0):
        raise ValueError(f"{key}={value!r}: expected {expected}.")


BIAS = "a standard deviation of at least 0, or null to leave the biases as built"


class LayerSettings:
    """The checked overrides, and which of them have been used.

    Raises:
        ValueError: For a pattern that is no regular expression, or a field or value that is not accepted.
    """

    def __init__(self, overrides: Overrides | None) -> None:
        self._settings = {str(pattern): _checked(str(pattern), fields) for pattern, fields in (overrides or {}).items()}
        self._used: set[tuple[str, str]] = set()

    def of(self, names: Collection[str], fields: Sequence[str]) -> dict[str, Any]:
        """Return what the patterns that match one of ``names`` in full say of ``fields``; a later pattern wins."""
        found: dict[str, Any] = {}
        for pattern, settings in self._settings.items():
            if any(re.fullmatch(pattern, name) for name in names):
                for field in set(fields) & settings.keys():
                    found[field] = settings[field]
                    self._used.add((pattern, field))
        return found

    def check_all_used(self, names: Iterable[str]) -> None:
        """Raise a ValueError for a pattern, or a field of it, that reached nothing among ``names``."""
        names = list(names)
        for pattern, settings in self._settings.items():
            if not any(re.fullmatch(pattern, name) for name in names):
                raise ValueError(nothing_matches("init.overrides", pattern, names))
            for field in settings:
                if (pattern, field) not in self._used:
                    kind = "bias" if field == "bias" else "weight"
                    raise ValueError(f"init.overrides={pattern!r}: {field} applies to no {kind} that it matches.")


def residual_factors(pattern: str | None, layers: Sequence[str], parameters: Sequence[str]) -> dict[str, float]:
    """Return the factor ``1 / sqrt(branches)`` for each of ``layers`` that ``pattern`` matches in full.

    Each residual branch adds to the stream, whose variance would grow with their number; scaling the last projection of
    every branch keeps it. With two branches a layer (attention, then the perceptron) it is 1 / sqrt(2 · layers).

    Source: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.3.

    Args:
        pattern: Regular expression of the last layer of every branch; None for none.
        layers: Names to choose from.
        parameters: Further names, only to tell that a parameter was named instead of a layer.
    Raises:
        ValueError: If it is no regular expression, or matches nothing.
    """
    if pattern is None:
        return {}
    expression = _compiled("init.residual", pattern)
    matched = [name for name in layers if expression.fullmatch(name)]
    if not matched:
        hint = " It takes names of layers, not of parameters." if any(map(expression.fullmatch, parameters)) else ""
        raise ValueError(nothing_matches("init.residual", pattern, layers) + hint)
    return dict.fromkeys(matched, 1 / math.sqrt(len(matched)))


def nothing_matches(key: str, pattern: str, names: Sequence[str]) -> str:
    """Return the message for a pattern that matches none of ``names``, with those close to it."""
    plain = re.sub(r"\\(.)|[.*+?]{2}|[\^$()]", r"\1", pattern)
    candidates = dict.fromkeys(part for name in names for part in (name, name.split(".")[0]))
    close = difflib.get_close_matches(plain, candidates, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    shown = ", ".join(names[:20]) + (f", ... ({len(names)} in all)" if len(names) > 20 else "")
    return f"{key}={pattern!r}: matches nothing in full.{hint} Accepted: a regular expression for {shown}."


def _compiled(key: str, pattern: Any) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except (re.error, TypeError) as error:
        raise ValueError(f"{key}={pattern!r}: expected a regular expression ({error}).") from error


def _checked(pattern: str, fields: Any) -> dict[str, Any]:
    _compiled("init.overrides", pattern)
    key = f"init.overrides={pattern!r}"
    if not isinstance(fields, Mapping) or not fields:
        raise ValueError(f"{key}: {fields!r} given; expected a mapping with some of {', '.join(FIELDS)}.")
    found = {str(field): value for field, value in fields.items()}
    for field, value in found.items():
        where = f"{key}: {field}"
        if field == "scheme":
            found[field] = _scheme(where, value)
        elif field == "gain":
            check_gain(where, value)
        elif field == "scale":
            check_size(where, value, "a number of at least 0")
        elif field == "bias":
            if value is not None:
                check_size(where, value, BIAS)
        else:
            close = difflib.get_close_matches(field, FIELDS, n=1)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise ValueError(f"{key}: {field!r} is no field of it.{hint} Accepted: {', '.join(FIELDS)}.")
    return found


def _scheme(where: str, value: Any) -> Any:
    if callable(value):
        return value
    if not isinstance(value, str) or value not in SCHEMES:
        close = difflib.get_close_matches(str(value), SCHEMES, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise ValueError(f"{where}={value!r}: unknown.{hint} Accepted: {', '.join(SCHEMES)}.")
    return SCHEMES[value]
