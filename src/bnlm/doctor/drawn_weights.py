"""How weights were drawn: as torch's layers do, by an init that somebody chose, or not at all but trained before."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from bnlm.doctor.facts import Facts, ParameterFacts

#: Elements of a weight that are needed to tell, and of a large one those that are looked at.
ENOUGH_TO_TELL, MANY = 50, 65536
#: How near the std of a bias is to that of one that was drawn.
LIKE_DRAWN = 0.3


def is_fresh(weight: Tensor) -> bool:
    """Return whether a weight is uniform within one over the root of its inputs, as of a new layer of torch's."""
    if weight.ndim < 2 or weight.numel() < ENOUGH_TO_TELL or not weight.is_floating_point():
        return False
    some = weight.detach().flatten()[:MANY].float()  # large networks are frozen, too
    largest = float(some.abs().max()) * math.sqrt(math.prod(weight.shape[1:]))
    spread = float(some.std()) * math.sqrt(3 * math.prod(weight.shape[1:]))
    return 0.9 < largest <= 1 + 1e-5 and 0.9 < spread < 1.1


def fresh_and_frozen(parameters: Mapping[str, nn.Parameter]) -> tuple[list[str], float]:
    """Return `Facts.fresh` and `Facts.fresh_share`."""
    fresh = {name: p for name, p in parameters.items() if not p.requires_grad and is_fresh(p)}
    trained: dict[torch.Size, list[Tensor]] = {}
    for parameter in parameters.values() if fresh else ():
        if parameter.requires_grad:
            trained.setdefault(parameter.shape, []).append(parameter)
    own = {n: p for n, p in fresh.items() if not any(torch.equal(p, other) for other in trained.get(p.shape, []))}
    share = sum(p.numel() for p in own.values()) / sum(p.numel() for p in parameters.values()) if own else 0.0
    return list(own), share


def has_untrained_bias(facts: Facts, weight: ParameterFacts) -> bool:
    """Return whether the bias beside a weight is as one starts, for training moves it: zero, drawn, or none.

    Drawn as torch does, at its scale or at that of the weight.
    """
    bias = facts.parameters.get(weight.name.removesuffix("weight") + "bias")
    if bias is None or not bias.std > 0:  # a single one has no spread
        return True
    return any(abs(bias.std / usual - 1) < LIKE_DRAWN for usual in (1 / math.sqrt(3 * weight.fan_in), weight.std))


def are_as_drawn(facts: Facts) -> bool:
    """Return whether all hidden weights are as torch's layers draw them."""
    judged = [one.fresh for one in _large_enough(facts)]
    return bool(judged) and all(judged)


def are_drawn_otherwise(facts: Facts) -> bool:
    """Return whether most hidden weights are of an init that somebody has chosen, and not of an earlier training."""
    judged = _large_enough(facts)
    return 2 * sum(has_untrained_bias(facts, one) and not one.fresh for one in judged) > len(judged)


def _large_enough(facts: Facts) -> list[ParameterFacts]:
    """Return the hidden weights of which can be told how they were drawn."""
    hidden = [one for one in facts.parameters.values() if one.role == "hidden" and one.std > 0 and one.fan_in > 0]
    return [one for one in hidden if math.prod(one.shape) >= ENOUGH_TO_TELL]
