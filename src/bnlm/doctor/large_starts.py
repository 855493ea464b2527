"""What starts larger than by any usual init: output layers, whole networks, inputs."""

from __future__ import annotations

import math
import statistics

from bnlm.doctor.drawn_weights import has_untrained_bias
from bnlm.doctor.facts import Facts, ParameterFacts
from bnlm.doctor.history import History

#: Std times the root of fan_in of weights that are large (1.4 to 1.7 by Kaiming's init).
LARGE_SCALE = 2.0
#: Std of a bias that makes logits.
LARGE_BIAS = 0.7
#: Elements of an output layer that tell its scale; std of its bias over that of one that torch draws.
ENOUGH, SMALL_BIAS = 10, 0.5
#: Std of what comes to the first activation of weights that are not large: std times the root of fan_in.
LARGE_FIRST, USUAL_WEIGHTS = 10.0, 3.0


def has_large_output(history: History) -> bool:
    """Return whether an output layer was drawn with larger weights than by any usual init, and is to be trained so."""
    facts = history.facts
    heads = [p for p in facts.parameters.values() if p.role == "output" and math.prod(p.shape) >= ENOUGH and p.fan_in]
    new = any(p.fresh for p in facts.parameters.values())
    large = [p for p in heads if p.std * math.sqrt(p.fan_in) > LARGE_SCALE]
    return any(new or has_untrained_bias(facts, p) or _has_small_bias(facts, p) for p in large) and not facts.frozen


def has_large_bias(history: History) -> bool:
    """Return whether the bias of an output layer to be trained makes the logits, rather than its weights."""
    facts = history.facts
    heads = [p for p in facts.parameters.values() if p.role == "output" and p.std * math.sqrt(p.fan_in) < LARGE_SCALE]
    biases = [facts.parameters.get(p.name.removesuffix("weight") + "bias") for p in heads]
    return not facts.frozen and any(bias is not None and bias.std > LARGE_BIAS for bias in biases)


def _has_small_bias(facts: Facts, weight: ParameterFacts) -> bool:
    """Return whether the bias beside a weight is far smaller than torch draws one."""
    bias = facts.parameters.get(weight.name.removesuffix("weight") + "bias")
    return bias is not None and bias.std * math.sqrt(3 * weight.fan_in) < SMALL_BIAS


def is_large(history: History) -> bool:
    """Return whether the typical hidden weight starts too large, so that the output layer is not alone to blame."""
    scales = [p.std * math.sqrt(p.fan_in) for p in history.facts.parameters.values() if p.role == "hidden"]
    return bool(scales) and statistics.median(scales) > LARGE_SCALE


def has_large_inputs(history: History) -> bool:
    """Return whether it is the inputs that are large, not the weights that they meet."""
    assert history.first is not None
    first = next(iter(history.first.of("preactivation_std").values()), 0.0)
    weights = [p for p in history.facts.parameters.values() if p.role == "hidden"][:1]
    return first > LARGE_FIRST and all(p.std * math.sqrt(p.fan_in) < USUAL_WEIGHTS for p in weights)
