"""Which of a network's modules compute all its activations, so that these alone can be listened to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

#: Observed steps in a row in which all calls were heard, and were the same, before the modules alone are listened to.
AGREED = 20
#: Of the observed steps from there on, in every so-manieth all calls are heard again.
CHECKED_EVERY = 10


@dataclass(frozen=True)
class Call:
    """An activation that one module of torch.nn computes once in a forward, into a new tensor."""

    module: nn.Module
    layer: str
    kind: str
    channel_dim: int
    limits: tuple[float, float] | None


class ActivationModules:
    """Learns from observed steps in which all calls were heard.

    To hear all calls, functions like `torch.tanh` among them, costs two thirds of what it costs to observe a forward. A
    network whose activations are all modules can do with a hook on each. That they are cannot be known, as a later step
    may take another way: it is believed after `AGREED` equal steps, and seen again in every `CHECKED_EVERY`-th.
    """

    def __init__(self) -> None:
        self._calls: Sequence[Call] = ()
        self._agreed = 0
        self._believed = 0

    def for_next_step(self) -> Sequence[Call]:
        """Return what to listen to; nothing where all calls have to be heard."""
        if self._agreed < AGREED or self._believed == CHECKED_EVERY - 1:
            self._believed = 0
            return ()
        self._believed += 1
        return self._calls

    def learn(self, forwards: Sequence[Sequence[Call | None]]) -> None:
        """Take in the calls of each forward of a step; None for an activation of any other form."""
        calls = [call for call in forwards[0] if call is not None] if forwards else []
        known = bool(calls) and all(forward == calls for forward in forwards)
        self._agreed = self._agreed + 1 if known and calls == self._calls else 0
        self._calls = calls if known else ()
