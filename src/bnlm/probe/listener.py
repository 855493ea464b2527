"""A forward hook that hears of one module, and of no copy of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Listener:
    """Calls `hear` with `what` and what the hook is given.

    A module that is copied or saved in the step that is observed takes its hooks along: there they do nothing, and do
    not bring the whole network with them.
    """

    def __init__(self, hear: Callable[..., None], what: Any) -> None:
        self._hear = hear
        self._what = what

    def __call__(self, *given: Any) -> None:
        self._hear(self._what, *given)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Listener, (_nothing, None)


def _nothing(*given: Any) -> None:
    pass
