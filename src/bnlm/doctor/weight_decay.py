"""How far weight decay alone moves a parameter in a step, which says nothing of what is learned, and may be too far."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch.optim import Optimizer

from bnlm.doctor.finding import Finding, power_of_ten

if TYPE_CHECKING:
    from bnlm.doctor.facts import Facts
    from bnlm.doctor.history import History

#: Dex between an update and what weight decay alone makes of it, to be that.
DECAYS = 0.3
#: Dex by which an update may exceed what it is where decay and steps are at rest.
AT_REST = 0.1
#: Weight decay that may be to blame: share of the weights in a step; of Adam, which rescales it, the option itself.
HEAVY, HEAVY_RESCALED = 2e-3, 0.1
#: Weight decay, the option itself, that is to blame for nothing.
USUAL, USUAL_OF_SGD = 0.1, 5e-3
#: R09: share of a weight that decay takes in a step. Usual: 1e-6 to 1e-3.
DECAY_WARNING = 0.0075
#: How the advice begins.
LOWER_DECAY = "Lower optimizer.weight_decay"
LOWER_DECAY_SHARE = (
    f"{LOWER_DECAY} by 10 or more: the learning rate times that is the share of a weight that a step takes away."
)
#: The same where it is the rate that makes much of a usual decay.
LOWER_RATE = (
    "Divide optimizer.lr by 10 or more: times weight_decay, which is a usual one, it is the share of a weight that a "
    "step takes away."
)


def groups_of(optimizers: Iterable[Optimizer]) -> dict[int, int]:
    """Return which group each parameter is in, by its `id`; groups are counted through all optimizers."""
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    return {id(parameter): index for index, group in enumerate(groups) for parameter in group["params"]}


def decays_of(optimizers: Iterable[Optimizer]) -> list[float]:
    """Return for each group the share of its weights that decay takes away in a step, as the rate is now.

    Of AdamW `lr * weight_decay` (Loshchilov & Hutter 2019, arXiv 1711.05101); of SGD, where momentum adds up what it
    takes, `lr * weight_decay / (1 - momentum)`. Of others, which scale it as they scale a gradient, 0: it is not known.
    """
    decays = []
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            share = float(group.get("lr") or 0.0) * float(group.get("weight_decay") or 0.0)
            if isinstance(optimizer, torch.optim.SGD):
                share /= max(1 - group["momentum"], 0.01)
            elif not isinstance(optimizer, torch.optim.AdamW):
                share = 0.0
            decays.append(share)
    return decays


def decay_of(history: History, group: int | None) -> float:
    """Return the share that decay typically takes from the weights of a group in a step; 0 where none is known."""
    groups = len(history.recent[-1].decays) if history.recent else 0
    if group is None or group >= groups:
        return 0.0
    return statistics.median(o.decays[group] for o in history.recent if len(o.decays) == groups)  # one may come late


def heavy_decay(history: History) -> float:
    """Return the largest weight decay, where it may be to blame for weights that are gone; else 0."""
    facts = history.facts
    groups = len(history.recent[-1].decays) if history.recent else 0
    heavy = any(decay_of(history, group) > HEAVY for group in range(groups))
    return facts.weight_decay if heavy and not _is_usual(facts) else rescaled_decay(history)


def _is_usual(facts: Facts) -> bool:
    """Return whether the option is of a usual size, so that it is the rate that makes much of it."""
    return facts.weight_decay <= (USUAL if facts.rescales else USUAL_OF_SGD)


def decay_advice(facts: Facts) -> str:
    """Return what to change where decay takes much of the weights in a step."""
    return LOWER_RATE if _is_usual(facts) else LOWER_DECAY_SHARE


def rescaled_decay(history: History) -> float:
    """Return the largest weight decay, where it is heavy and an optimizer rescales it as it does a gradient; else 0."""
    facts = history.facts
    return facts.weight_decay if facts.decay_rescaled and facts.weight_decay >= HEAVY_RESCALED else 0.0


def blamed_on_decay(large: Finding, history: History, group: int | None) -> Finding:
    """Return a finding that updates are too large; where they are what weight decay takes, with this said.

    Args:
        large: With log10 of update:data as its value.
        history: The run.
        group: Of the weights that move most.
    """
    decay, heavy = decay_of(history, group), heavy_decay(history)
    if decay > 0 and (math.log10(decay) > large.value - DECAYS or _at_rest(decay, large)):
        return replace(
            large,
            message=f"{large.message} Weight decay alone takes {power_of_ten(math.log10(decay))} of them in each step.",
            suggestion=decay_advice(history.facts),
        )
    if heavy and decay == 0:
        return replace(large, suggestion=f"{LOWER_DECAY} ({heavy:g}) by 10 or more. {large.suggestion}")
    return large


def _at_rest(decay: float, large: Finding) -> bool:
    """Return whether steps are as large as a heavy decay alone makes them beside weights that it keeps small.

    Those of AdamW come to rest at sqrt(2 x decay) of the weights (Kosson et al. 2023, arXiv 2305.17212).
    """
    return large.step > 0 and decay > DECAY_WARNING and large.value < math.log10(2 * decay) / 2 + AT_REST
