"""How far steps move the weights, and what is granted above the limits of a hidden one."""

from __future__ import annotations

import math

from bnlm.doctor.facts import ParameterFacts
from bnlm.doctor.history import History

#: R09: log10 of update:data. Healthy hidden layers: -2.2 to -3.1, before a normalization up to -1.5.
LARGE_WARNING, LARGE_CRITICAL = -1.8, -1.0
#: R09: std times the root of fan_in below which weights are small (0.58 by torch's default), and steps look large.
SMALL_DRAW = 0.4
#: Dex above the limits of a hidden weight: before a normalization, and of output layers and embeddings.
NORM_ALLOWANCE, OUTPUT_ALLOWANCE = 0.5, 1.0


def judged_updates(history: History) -> tuple[dict[str, float], dict[str, float]]:
    """Return by name each weight's median update:data, and what is granted above the limits of a hidden one."""
    facts = history.facts.parameters
    # What starts at zero moves far beside its own size, rightly.
    judged = {
        name: update
        for name, update in history.median("update_to_data").items()
        if name in facts and facts[name].role != "vector" and facts[name].std > 0
    }
    return judged, {name: allowance(facts[name]) for name in judged}


def is_drawn_small(parameter: ParameterFacts) -> bool:
    """Return whether a weight started so small that usual steps are large beside it."""
    return parameter.std * math.sqrt(parameter.fan_in) < SMALL_DRAW


def allowance(parameter: ParameterFacts) -> float:
    """Return the dex that are granted to a weight."""
    return NORM_ALLOWANCE * parameter.feeds_norm + OUTPUT_ALLOWANCE * (parameter.role != "hidden")


def hidden_updates(history: History) -> dict[str, float]:
    """Return the median update:data of the hidden weights, without those that nothing but zeros comes to.

    Of all weights where none is hidden, as where embeddings are multiplied with each other.
    """
    facts, zeros = history.facts.parameters, history.fed_with_zeros()
    judged = judged_updates(history)[0]
    some = any(one.role == "hidden" for one in facts.values())
    judged = {n: u for n, u in judged.items() if u > -math.inf or n not in history.turns}
    return {n: u for n, u in judged.items() if (not some or facts[n].role == "hidden") and n not in zeros}
