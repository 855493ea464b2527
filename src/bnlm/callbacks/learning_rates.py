"""Learning rates and weight decay as they are when an observed step begins."""

from __future__ import annotations

from collections.abc import Sequence

from torch.optim import Optimizer

from bnlm.doctor import decays_of


class LearningRates:
    """Keeps them until the step is read, and the highest rate of each parameter group so far."""

    def __init__(self) -> None:
        self._highest: dict[int, float] = {}
        self._of_step: dict[int, tuple[float, list[float]]] = {}

    def start(self, goes_on: bool) -> None:
        """Forget the steps, and the highest rates too unless training goes on where it was."""
        self._of_step.clear()
        if not goes_on:
            self._highest.clear()

    def note(self, step: int, optimizers: Sequence[Optimizer]) -> None:
        """Keep what they are at this step."""
        self._of_step[step] = self._share_of_highest(optimizers), decays_of(optimizers)

    def take(self, step: int) -> tuple[float, list[float]]:
        """Return the rate as a share of the highest so far, and the decays, see `decays_of`; and forget this step."""
        return self._of_step.pop(step)

    def _share_of_highest(self, optimizers: Sequence[Optimizer]) -> float:
        """Return the largest share over all parameter groups."""
        shares = []
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        for index, group in enumerate(groups):
            lr = float(group.get("lr") or 0.0)  # some find their rates themselves
            self._highest[index] = max(self._highest.get(index, 0.0), lr, float(group.get("initial_lr", 0.0)))
            shares.append(lr / self._highest[index] if self._highest[index] > 0 else 1.0)
        return max(shares, default=1.0)
