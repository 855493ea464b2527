"""Activations that a checkpoint computes without a graph in the forward, and again with one in the backward pass."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch.utils.checkpoint import CheckpointFunction

#: What `torch.utils.checkpoint(use_reentrant=True)` runs in the forward.
_FORWARD = CheckpointFunction.forward.__code__


@dataclass(frozen=True)
class Segment:
    """What one call of `checkpoint` has computed.

    Attributes:
        context: That the call keeps for its backward pass.
        calls: Layers and their channel dimensions, in their order, which will be the same again.
    """

    context: Any
    calls: list[tuple[str, int]] = field(default_factory=list)

    def when_run_again(self, run_within: Callable[[Segment, Callable[..., Any], tuple[Any, ...]], Any]) -> None:
        """Have the backward pass call `run_within` with this, and with what is to be computed again of what."""
        run = self.context.run_function
        self.context.run_function = lambda *given: run_within(self, run, given)


def checkpoint_context() -> Any:
    """Return the context of the innermost such checkpoint that is computing its forward; None outside of one."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code is _FORWARD:
            return frame.f_locals["ctx"]
        frame = frame.f_back  # type: ignore[assignment]
    return None
