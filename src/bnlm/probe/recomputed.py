"""Activations that a checkpoint computes without a graph in the forward, and again with one in the backward pass."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from torch.utils.checkpoint import CheckpointFunction

#: What `torch.utils.checkpoint(use_reentrant=True)` runs in the forward.
_FORWARD = CheckpointFunction.forward.__code__


@dataclass(frozen=True)
class _Segment:
    """What one call of `checkpoint` has computed: layers and their channel dimensions, in their order."""

    context: Any  # that the call keeps for its backward pass
    calls: list[tuple[str, int]] = field(default_factory=list)


class Recomputed:
    """The calls of `torch.utils.checkpoint(use_reentrant=True)`, whose order will be the same again.

    Args:
        listening: A context in which what is computed again is seen.
    """

    def __init__(self, listening: Callable[[], AbstractContextManager[None]]) -> None:
        self._listening = listening
        self._segments: list[_Segment] = []
        self._again: Iterator[tuple[str, int]] = iter(())

    def may_come_again(self, layer: str, channel_dim: int) -> None:
        """Take in a call without a graph, if it is one of a checkpoint's."""
        context = _checkpoint_context()
        if context is None:
            return
        if not self._segments or self._segments[-1].context is not context:
            segment = _Segment(context)
            self._segments.append(segment)
            run = context.run_function
            context.run_function = lambda *given: self._run_again(segment, run, given)
        self._segments[-1].calls.append((layer, channel_dim))

    def next_call(self) -> tuple[str, int] | None:
        """Return which layer is called again now, and its channel dimension; None of what was seen with a graph."""
        return next(self._again, None)

    def _run_again(self, segment: _Segment, run: Callable[..., Any], given: tuple[Any, ...]) -> Any:
        self._again = iter(segment.calls)
        try:
            with self._listening():
                return run(*given)
        finally:
            self._again = iter(())


def _checkpoint_context() -> Any:
    """Return the context of the innermost such checkpoint that is computing its forward; None outside of one."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code is _FORWARD:
            return frame.f_locals["ctx"]
        frame = frame.f_back  # type: ignore[assignment]
    return None
