"""The check that the sizes of all models share."""

from __future__ import annotations


def check_sizes(**sizes: object) -> None:
    """Raise a ValueError unless every size is a whole number of at least 1; a bool is not a number here.

    Each is named by its key in the configuration: `context` belongs to the data, every other one to the model.
    """
    for name, value in sizes.items():
        if not is_size(value):
            key = "data.context" if name == "context" else f"model.{name}"
            raise ValueError(f"{key}={value!r}: expected a whole number of at least 1.")


def is_size(value: object) -> bool:
    """Return whether ``value`` is a whole number of at least 1."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
