"""What goes into a loss function: how wrong the network is beside one that knows nothing, and how sure of itself."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bnlm.stats import accumulation_dtype

#: The loss functions that are understood, and what they are called here.
LOSS_FUNCTIONS: dict[Callable[..., Any], str] = {
    F.cross_entropy: "cross_entropy",
    F.nll_loss: "cross_entropy",
    F.binary_cross_entropy: "binary_cross_entropy",
    F.binary_cross_entropy_with_logits: "binary_cross_entropy_with_logits",
    F.mse_loss: "mse_loss",
}
#: Examples of one call that are looked at.
MAX_EXAMPLES = 4096


@dataclass
class LossRecord:
    """One call of a loss function.

    Attributes:
        kind: A value of `LOSS_FUNCTIONS`; cross_entropy also for log-probabilities.
        values: `(4,)`: the mean loss of an example, its standard error, the reference (the loss of a network that knows
            nothing) and the std of an example's logits over the classes, averaged (nan without classes).
    """

    kind: str
    values: Tensor


@torch.no_grad()
def loss_record(kind: str, x: Tensor, target: Any, ignore_index: int = -100) -> LossRecord | None:
    """Return the record of a call, or None where it is of a form that is not understood."""
    if not (isinstance(x, Tensor) and isinstance(target, Tensor) and x.is_floating_point() and x.numel()):
        return None
    x = x.detach().float()
    if kind == "cross_entropy":
        if target.is_floating_point() or x.ndim != target.ndim + 1:
            return None
        return LossRecord(
            kind, _of_classes(x.movedim(1, -1).flatten(0, -2) if x.ndim > 1 else x[None], target, ignore_index)
        )
    target = target.detach().float()
    if target.shape != x.shape:
        return None
    if kind == "mse_loss":
        losses, reference = (x - target).square(), target.square().mean()  # of an output of zero
    else:
        losses = getattr(F, kind)(x, target, reduction="none")
        reference = x.new_tensor(math.log(2))
    error = losses.std() / math.sqrt(losses.numel())
    return LossRecord(kind, torch.stack([losses.mean(), error, reference, torch.full_like(error, math.nan)]))


def _of_classes(logits: Tensor, target: Tensor, ignore_index: int) -> Tensor:
    """Return the values of a `LossRecord` from `(N, classes)` logits and `(N,)` targets."""
    target = target.reshape(-1)
    if (stride := -(-len(logits) // MAX_EXAMPLES)) > 1:
        logits, target = logits[::stride], target[::stride]
    losses = F.cross_entropy(logits, target, ignore_index=ignore_index, reduction="none")
    counted = (target != ignore_index).to(losses.dtype)
    each = torch.stack([counted, losses, logits.std(dim=1) * counted]).to(accumulation_dtype(logits.device))
    (n, total, spread), (_, squares, _) = (each[:2] @ each.T).unbind()  # the losses of what is ignored are 0
    mean = total / n
    error = ((squares - total * mean).clamp_min(0) / (n - 1) / n).sqrt()
    return torch.stack([mean, error, torch.full_like(mean, math.log(logits.shape[1])), spread / n])
