"""How far weight decay alone moves a parameter in a step: updates of that size say nothing of what is learned."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch.optim import Optimizer

from bnlm.doctor.finding import Finding, power_of_ten

#: Dex between an update and what weight decay alone makes of it, to be that.
DECAYS = 0.3


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


def blamed_on_decay(large: Finding, decay: float, heavy: float) -> Finding:
    """Return a finding that updates are too large; where they are what weight decay takes, with this said.

    Args:
        large: With log10 of update:data as its value.
        decay: Share of these weights that decay takes in a step; 0 where it is not known.
        heavy: The option, where it may be to blame; else 0.
    """
    if decay > 0 and math.log10(decay) > large.value - DECAYS:
        return replace(
            large,
            message=f"{large.message} Weight decay alone takes {power_of_ten(math.log10(decay))} of them in each step.",
            suggestion="Lower optimizer.weight_decay by 10 or more: the learning rate times that is the share of a "
            "weight that a step takes away.",
        )
    if heavy and decay == 0:
        return replace(large, suggestion=f"Lower optimizer.weight_decay ({heavy:g}) by 10 or more. {large.suggestion}")
    return large
