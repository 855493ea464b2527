"""What goes into a loss function: how wrong the network is beside one that knows nothing, and how sure of itself."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bnlm.probe.plain_values import is_mapped
from bnlm.probe.reach import Reach
from bnlm.stats import accumulation_dtype

#: Those of a distance between an output and its target.
REGRESSIONS = ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss")
#: The loss functions that are understood, and what they are called here.
LOSS_FUNCTIONS: dict[Callable[..., Any], str] = {
    F.cross_entropy: "cross_entropy",
    F.nll_loss: "nll_loss",
    F.binary_cross_entropy: "binary_cross_entropy",
    F.binary_cross_entropy_with_logits: "binary_cross_entropy_with_logits",
    **{getattr(F, kind): kind for kind in REGRESSIONS},
}
#: Examples of one call that are looked at.
MAX_EXAMPLES = 4096
#: How far the logarithm of a sum of probabilities may be from 0.
IMPROPER = 0.1
#: How far sums of probabilities may be from what they are.
SAME_SUM = 1e-3
#: Share of the largest entropy that targets may have on average which give each class a probability.
UNSURE = 0.5
#: Classes whose examples are counted.
MAX_COUNTED = 1000
#: Values of a record that are of each kind, before the counts.
FIXED = 7
#: Elements of an output that tell whether it is the same for all examples.
MAX_COMPARED = 1 << 14


def family_of(kind: str) -> str:
    """Return cross_entropy, binary_cross_entropy, or regression for all `REGRESSIONS`."""
    if kind == "nll_loss":
        return "cross_entropy"
    return "regression" if kind in REGRESSIONS else kind.removesuffix("_with_logits")


@dataclass
class LossRecord:
    """One call of a loss function.

    Attributes:
        kind: A value of `LOSS_FUNCTIONS`.
        values: `(FIXED,)`: the mean loss of an example, its standard error, the reference (the loss of a network that
            knows nothing), the std of an example's logits over the classes, averaged (of binary logits that of all;
            nan of others, and of cosines, whose scale is chosen: `LossCalls` sees whether they are), the loss of the
            best constant output (nan of other kinds than `REGRESSIONS`), what the loss cannot fall below if what is
            given for logits is probabilities, as it looks (else nan; -inf where nll_loss is given what is no log-
            probabilities, or a binary loss targets beyond 0 and 1 without both of these; inf where each probability is
            1), and how far an output differs between examples, as a share of the largest output (nan of a single
            example). Of up to `MAX_COUNTED` classes `(FIXED + classes,)`: then how many of the targets are of each; of
            binary ones how many are 1, for each place of an output, and then how many examples there are.
        broadcast: Whether outputs and targets differ in shape so that each output is held against other targets too.
        activation: Of which the outputs come straight, so that they reach its values alone: the floor is of these.
        scales: Of what only looks like a loss (see `WrittenLoss`): times what its mean is the loss of the step.
    """

    kind: str
    values: Tensor
    broadcast: bool = False
    activation: str = ""
    scales: tuple[float, ...] = ()


@torch.no_grad()
def loss_record(
    kind: str,
    x: Tensor,
    target: Any,
    ignore_index: int = -100,
    reach: Reach | None = None,
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
    **options: float,
) -> LossRecord | None:
    """Return the record of a call, or None where it is of a form that is not understood.

    Args:
        kind: A value of `LOSS_FUNCTIONS`.
        x: What the call compares with `target`.
        target: Tensor of the shape that the function asks for.
        ignore_index: Of cross_entropy.
        reach: Of some activation of the network, which may have made `x`.
        weight: Of each class; of binary_cross_entropy what its losses are multiplied with.
        pos_weight: Of binary_cross_entropy_with_logits.
        options: `beta` of smooth_l1_loss, `delta` of huber_loss.
    """
    if not (isinstance(x, Tensor) and isinstance(target, Tensor) and x.is_floating_point() and x.numel()):
        return None
    if is_mapped(x) or is_mapped(target):  # each of several networks has its own loss
        return None
    if target.requires_grad:  # what the network makes itself says nothing of what is to be learned
        return None
    if reach is not None and not reach.is_of(x):
        reach = None
    x = x.detach().float()
    differ = _spread_over_examples(x)
    if kind in ("cross_entropy", "nll_loss"):
        if kind == "cross_entropy" and target.is_floating_point() and target.shape == x.shape and x.ndim > 1:
            return _of_soft_targets(x, target, differ)
        if target.is_floating_point() or x.ndim != target.ndim + 1:
            return None
        logits = x.movedim(1, -1).flatten(0, -2) if x.ndim > 1 else x[None]
        values = _of_classes(logits, target, ignore_index, weight, differ)
        if kind == "nll_loss":
            improper = (logits[:MAX_EXAMPLES].logsumexp(dim=1).abs() > IMPROPER).any()
            values[5] = torch.where(improper, -math.inf, math.nan)
        elif reach is not None:
            values[5] = reach.floor_of_classes(logits.shape[1])
        elif _sum_over_examples(logits):
            reach = Reach("softmax", 0.0, 1.0, None, 0)
            values[5] = reach.floor_of_classes(logits.shape[1])
        return LossRecord(kind, values, activation=reach.kind if reach is not None else "")
    target = target.detach().float()
    broadcast = target.shape != x.shape
    if broadcast and (kind not in REGRESSIONS or not _fit(x, target)):
        return None
    distance = partial(getattr(F, kind), reduction="none", **options) if kind in REGRESSIONS else None
    if distance is not None:
        losses, reference, constant = _of_distances(distance, x, target)
    else:
        weights = {"weight": weight} | ({"pos_weight": pos_weight} if kind.endswith("logits") else {})
        losses = getattr(F, kind)(x, target, reduction="none", **weights)
        unsure = torch.full_like(x, 0.0 if kind.endswith("logits") else 0.5)
        reference = getattr(F, kind)(unsure, target, **weights)
        constant = x.new_tensor(math.nan)
    weighted = weight is not None or pos_weight is not None
    several = losses.numel() > 1
    error = losses.std() / math.sqrt(losses.numel()) if several else losses.new_tensor(math.nan)
    none = torch.full_like(error, math.nan)
    floor = none
    if reach is not None and distance is not None:
        floor = reach.floor_of_distances(distance, target)
    elif kind == "binary_cross_entropy_with_logits" and not weighted:
        floor = _floor_of_sigmoids(x, target, losses) if reach is None else reach.floor_of_logits(target)
    elif kind == "binary_cross_entropy":
        floor = torch.where((x == 1).all(), math.inf, none)
    if distance is None:
        # Beside targets of 0 and 1 others mark what is left out of the loss.
        foreign = ((target < 0) | (target > 1)).any() & ~((target == 0).any() & (target == 1).any())
        floor = torch.where(foreign, -math.inf, floor)
    logit_std = x.std() if kind == "binary_cross_entropy_with_logits" and several else none
    values = torch.stack([losses.mean(), error, reference, logit_std, constant, floor, differ])
    if distance is None and target.ndim and not broadcast and not weighted:
        values = torch.cat([values, *_ones(target)])
    crossed = broadcast and losses.numel() > max(x.numel(), target.numel())
    return LossRecord(kind, values, crossed, reach.kind if reach is not None else "")


def _sum_over_examples(logits: Tensor) -> bool:
    """Return whether it is over examples, or places in a sequence, that `(N, classes)` "logits" sum to 1: a softmax's.

    Over all of them each class sums to how many sequences there are then.
    """
    if len(logits) < 2 or logits.shape[1] < 2 or not bool(((logits >= 0) & (logits <= 1)).all()):
        return False
    of_classes, of_examples = logits.double().sum(dim=0), logits.double().sum(dim=1)
    sequences = of_classes.mean().round().clamp_min(1)
    alike = ((of_classes - sequences).abs() < SAME_SUM * sequences).all()
    differ = (logits != logits[0]).any(dim=0).all()  # what is the same for all examples has such sums, too
    return bool(alike and differ and ((of_examples - 1).abs() > 10 * SAME_SUM).any())


def _spread_over_examples(x: Tensor) -> Tensor:
    """Return the largest std over the examples of a place of an output, over the largest output; nan of one example."""
    rows = x.reshape(len(x), -1) if x.ndim else x.reshape(1, 1)
    rows = rows[: max(MAX_COMPARED // rows.shape[1], 2), :MAX_COMPARED]
    if len(rows) < 2:
        return x.new_tensor(math.nan)
    return rows.std(dim=0).max() / rows.abs().max()


def _ones(target: Tensor) -> list[Tensor]:
    """Return how many targets are 1 for each place of an output, and of how many examples; nothing of other targets."""
    ones = target.reshape(len(target), -1).sum(dim=0)
    if len(ones) > MAX_COUNTED or not bool(((target == 0) | (target == 1)).all()):
        return []
    return [ones, ones.new_tensor([len(target)])]


def _fit(x: Tensor, target: Tensor) -> bool:
    """Whether torch would broadcast the one to the other."""
    pairs = zip(reversed(x.shape), reversed(target.shape), strict=False)
    return all(a == b or 1 in (a, b) for a, b in pairs)


def _floor_of_sigmoids(x: Tensor, target: Tensor, losses: Tensor) -> Tensor:
    """Return the least loss of logits from 0 to 1, as a sigmoid makes them; nan where some are beyond."""
    within = ((x >= 0) & (x <= 1)).all()
    least = F.binary_cross_entropy_with_logits(torch.logit(target, eps=1e-6).clamp(0, 1), target)
    return torch.where(within, least, torch.full_like(losses.mean(), math.nan))


def _of_distances(distance: partial[Tensor], x: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the losses, and the means of an output of zero and of the best constant for each place of an output."""
    losses = distance(*torch.broadcast_tensors(x, target))
    reference = distance(torch.zeros_like(target), target).mean()
    # Where torch broadcasts, an output meets targets of other examples: a place of its own it has not.
    rows = target.reshape(len(target), -1) if target.shape == x.shape and target.ndim else target.reshape(-1, 1)
    if len(rows) < 2:
        return losses, reference, reference
    middle = rows.mean(dim=0) if distance.func is F.mse_loss else rows.median(dim=0).values
    constant = distance(middle.expand_as(rows), rows).mean() * (len(rows) / (len(rows) - 1))
    return losses, reference, constant


def _of_soft_targets(x: Tensor, target: Tensor, differ: Tensor) -> LossRecord | None:
    """Return the record where each class has a probability; None where these leave little to be known."""
    logits, probs = (t.movedim(1, -1).flatten(0, -2)[:MAX_EXAMPLES] for t in (x, target.detach().float()))
    chance = math.log(x.shape[1])
    if torch.special.entr(probs).sum(dim=1).mean() > UNSURE * chance:
        return None
    losses = F.cross_entropy(logits, probs, reduction="none")
    none = torch.full_like(losses[0], math.nan)
    error = losses.std() / math.sqrt(len(losses))
    spread = logits.std(dim=1).mean()
    values = torch.stack([losses.mean(), error, torch.full_like(none, chance), spread, none, none, differ])
    return LossRecord("cross_entropy", values)


def _of_classes(logits: Tensor, target: Tensor, ignore_index: int, weight: Tensor | None, differ: Tensor) -> Tensor:
    """Return the values of a `LossRecord` from `(N, classes)` logits and `(N,)` targets, and class weights."""
    target = target.reshape(-1)
    if (stride := -(-len(logits) // MAX_EXAMPLES)) > 1:
        logits, target = logits[::stride], target[::stride]
    losses = F.cross_entropy(logits, target, ignore_index=ignore_index, reduction="none")
    counted = (target != ignore_index).to(losses.dtype)
    stds = logits.std(dim=1) if logits.shape[1] > 1 else torch.zeros_like(losses)
    each = torch.stack([counted, losses, stds * counted]).to(accumulation_dtype(logits.device))
    (n, total, spread), (_, squares, _) = (each[:2] @ each.T).unbind()  # the losses of what is ignored are 0
    mean = total / n
    error = ((squares - total * mean).clamp_min(0) / (n - 1) / n).sqrt()
    if weight is not None:
        of_each = (weight.detach().float()[target.where(counted > 0, 0)] * counted).to(each.dtype)
        mean = (of_each * each[1]).sum() / of_each.sum()
        error = (of_each * (each[1] - mean)).square().sum().sqrt() / of_each.sum() * (n / (n - 1)).sqrt()
    chance, none = torch.full_like(mean, math.log(logits.shape[1])), torch.full_like(mean, math.nan)
    sum_to_one = (logits >= 0).all() & ((logits.sum(dim=1) - 1).abs() < 0.01).all()
    # Of one probability 1 and all others 0, softmax makes e / (e + classes - 1).
    floor = torch.where(sum_to_one, math.log(math.e + logits.shape[1] - 1) - 1, none)
    values = torch.stack([mean, error, chance, spread / n, none, floor, differ.to(mean.dtype)])
    if logits.shape[1] > MAX_COUNTED or weight is not None:
        return values
    return torch.cat([values, torch.bincount(target[target != ignore_index], minlength=logits.shape[1])])
