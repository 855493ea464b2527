"""What the callbacks are told, looked at before training."""

from collections.abc import Mapping, Sequence


def patterns(option: str, given: Sequence[str] | None) -> tuple[str, ...] | None:
    """Return `given`.

    Raises:
        ValueError: If it is no list of shell patterns.
    """
    if given is None:
        return None
    if isinstance(given, str) or not all(isinstance(pattern, str) for pattern in given):
        raise ValueError(f'{option}={given!r}: expected a list of patterns, such as ["encoder.*"].')
    return tuple(given)


def dims_by_pattern(given: Mapping[str, int] | None) -> Mapping[str, int]:
    """Return `given`, or nothing.

    Raises:
        ValueError: If it is no dimension by shell pattern.
    """
    numbers = isinstance(given, Mapping) and all(isinstance(d, int) and not isinstance(d, bool) for d in given.values())
    if given is not None and not numbers:
        raise ValueError(f'channel_dims={given!r}: expected a dimension by pattern, such as {{"encoder.*": 1}}.')
    return dict(given or {})


def at_least_one(option: str, given: int) -> int:
    """Return `given`.

    Raises:
        ValueError: If it is not a whole number of at least 1.
    """
    if not isinstance(given, int) or isinstance(given, bool) or given < 1:
        raise ValueError(f"{option}={given!r}: expected a whole number of at least 1.")
    return given
