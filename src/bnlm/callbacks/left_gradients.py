"""Gradients that nobody has set to zero: where that is left to the module, it is easily forgotten."""

from __future__ import annotations

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.model_helpers import is_overridden

from bnlm.probe import real


class LeftGradients:
    """Counts in how many observed steps in a row the first backward pass found gradients of an earlier one.

    Where several batches make a step that is as it should be, and with several optimizers one may leave what the other
    is about to set to zero: such runs are not judged.

    Attributes:
        steps: The count.
    """

    def __init__(self) -> None:
        self.steps = 0
        self._looked_at = -1

    @staticmethod
    def may_occur(pl_module: LightningModule) -> bool:
        """Return whether it is the module that sets them to zero, and not Lightning."""
        return not pl_module.automatic_optimization or is_overridden("optimizer_zero_grad", pl_module)

    def before_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look, on an observed step, at the parameter that the optimizer holds first."""
        step = trainer.global_step
        if not self.may_occur(pl_module) or step == self._looked_at or len(trainer.optimizers) != 1:
            return
        self._looked_at = step
        held = (p for group in trainer.optimizers[0].param_groups for p in group["params"] if p.grad is not None)
        first = next(held, None)
        a_step_each = step == trainer.fit_loop.total_batch_idx
        left = step > 0 and a_step_each and first is not None and bool(real(first.grad).count_nonzero())
        self.steps = self.steps + 1 if left else 0
