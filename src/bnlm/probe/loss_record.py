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
        values: `(5,)`: the mean loss of an example, its standard error, the reference (the loss of a network that knows
            nothing), the std of an example's logits over the classes, averaged (nan without classes), and of a squared
            error the loss of the best constant output (nan of other kinds).
        broadcast: Whether outputs and targets differ in shape, so that each output is held against other targets too.
    """

    kind: str
    values: Tensor
    broadcast: bool = False


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
    broadcast = target.shape != x.shape
    if broadcast and (kind != "mse_loss" or not _fit(x, target)):
        return None
    if kind == "mse_loss":
        losses, reference = (x - target).square(), target.square().mean()  # of an output of zero
        constant = reference
        if target.numel() > 1 and (broadcast or len(target) > 1):  # of one for each place of the output
            constant = target.var() if broadcast else target.var(dim=0).mean()
    else:
        losses = getattr(F, kind)(x, target, reduction="none")
        reference, constant = x.new_tensor(math.log(2)), x.new_tensor(math.nan)
    several = losses.numel() > 1
    error = losses.std() / math.sqrt(losses.numel()) if several else losses.new_tensor(math.nan)
    values = torch.stack([losses.mean(), error, reference, torch.full_like(error, math.nan), constant])
    return LossRecord(kind, values, broadcast)


def _fit(x: Tensor, target: Tensor) -> bool:
    """Whether torch would broadcast the one to the other."""
    pairs = zip(reversed(x.shape), reversed(target.shape), strict=False)
    return all(a == b or 1 in (a, b) for a, b in pairs)


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
    chance, none = torch.full_like(mean, math.log(logits.shape[1])), torch.full_like(mean, math.nan)
    return torch.stack([mean, error, chance, spread / n, none])
