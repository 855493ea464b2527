"""Hears of the optimizer steps between two observed ones, which costs less than a hook of a callback."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.optim import Optimizer


class PassingSteps:
    """Listens to an optimizer, which Lightning gives a closure that has the batch's loss once it was called.

    Lightning surrounds each hook of a callback with its profiler, which takes longer than to keep a loss. What the
    closure holds is private to Lightning: it is to be believed only where it is what the end of an earlier batch has
    brought.

    Attributes:
        loss: Of the optimizer's last step, `()`; None until one was found.
        left: Steps to be passed over still.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self.loss: Tensor | None = None
        self.left = 0
        self._keep: Callable[[Tensor], None] | None = None
        self._last: Callable[[], None] | None = None
        self._handle = optimizer.register_step_post_hook(self._after_step)

    def start(self, steps: int, keep: Callable[[Tensor], None], last: Callable[[], None]) -> None:
        """Give `keep` the loss of each step that comes, but the last of so many: then `last` is called."""
        self.left, self._keep, self._last = steps, keep, last

    def stop(self) -> int:
        """Keep nothing more; return how many steps are left, the one among them that is being taken."""
        left, self.left, self._keep, self._last = self.left, 0, None, None
        return left

    def remove(self) -> None:
        """Stop to listen."""
        self.stop()
        self._handle.remove()

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        try:
            loss = kwargs["closure"].args[-1]._result.loss
        except (KeyError, IndexError, AttributeError, TypeError):  # somebody else's step, or another Lightning
            return
        if loss is self.loss and loss is not None:  # a step within a step
            return
        self.loss = loss
        if self.left > 1:
            self.left -= 1
            if loss is not None:  # else `training_step` has skipped the batch
                assert self._keep is not None
                self._keep(loss)
        elif self.left:
            assert self._last is not None
            self._last()
