"""Learning rates and weight decay as they are when an observed step begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch.optim import Optimizer

from bnlm.doctor import decays_of


class LearningRates:
    """Keeps them until the step is read, and the highest and the last rate of each parameter group so far."""

    def __init__(self) -> None:
        self._highest: dict[int, float] = {}
        self._last: list[float] = []
        self._of_step: dict[int, tuple[float, float, list[float]]] = {}

    def start(self, goes_on: bool) -> None:
        """Forget the steps, and the highest rates too unless training goes on where it was."""
        self._of_step.clear()
        self._last = []
        if not goes_on:
            self._highest.clear()

    def note(self, step: int, optimizers: Sequence[Optimizer]) -> None:
        """Keep what they are at this step."""
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        rates = [float(group.get("lr") or 0.0) for group in groups]  # some find their rates themselves
        rises = [now / before for before, now in zip(self._last, rates, strict=False) if before > 0]
        self._last = rates
        shares = self._shares_of_highest(groups, rates)
        self._of_step[step] = max(shares, default=1.0), max(rises, default=1.0), decays_of(optimizers)

    def take(self, step: int) -> tuple[float, float, list[float]]:
        """Return what the rates are at this step, and forget it: each the largest over all parameter groups.

        Returns:
            The rate as a share of the highest so far, the rate over that of the last observed step, and the decays, see
            `decays_of`.
        """
        return self._of_step.pop(step)

    def _shares_of_highest(self, groups: Sequence[Mapping[str, Any]], rates: Sequence[float]) -> list[float]:
        shares = []
        for index, (group, lr) in enumerate(zip(groups, rates, strict=True)):
            self._highest[index] = max(self._highest.get(index, 0.0), lr, float(group.get("initial_lr", 0.0)))
            shares.append(lr / self._highest[index] if self._highest[index] > 0 else 1.0)
        return shares
