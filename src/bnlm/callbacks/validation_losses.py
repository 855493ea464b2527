"""The losses of a validation that logs none: what its loss function returns."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from bnlm.probe import LOSS_FUNCTIONS, family_of

#: Batches that are listened to, which in most validations are the same each time.
BATCHES = 4


class ValidationLosses(TorchFunctionMode):
    """Keeps the first loss of each of the first batches that a loss function of training's kind returns.

    Attributes:
        needed: Whether to listen at all: to be set where a validation has ended whose loss is not known otherwise.
    """

    def __init__(self) -> None:
        super().__init__()
        self.needed = False
        self._kind = ""
        self._of_batch: Tensor | None = None
        self._losses: list[Tensor] = []
        self._entered = False

    def batch_starts(self, batch_idx: int, kind: str) -> None:
        """Listen to this batch for a loss of this kind, see `family_of`."""
        if self.needed and batch_idx < BATCHES and not self._entered:
            self._kind = kind
            self._of_batch = None
            self.__enter__()
            self._entered = True

    def batch_ends(self) -> None:
        """Listen no more. May be called twice."""
        if not self._entered:
            return
        stack = torch.overrides._get_current_function_mode_stack()
        if stack and stack[-1] is self:
            self.__exit__(None, None, None)
            self._entered = False
            if self._of_batch is not None:
                self._losses.append(self._of_batch)

    def take(self) -> float | None:
        """Return the mean over the batches of a validation, and forget it; None where nothing was heard."""
        losses, self._losses = self._losses, []
        return fmean(loss.item() for loss in losses) if losses else None

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        kind = LOSS_FUNCTIONS.get(func)
        if kind is not None and family_of(kind) == self._kind and self._of_batch is None and output.ndim == 0:
            self._of_batch = output.detach()
        return output
