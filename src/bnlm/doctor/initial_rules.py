"""Rules that step 0 answers: R03, R04 and R09 at the start; with R05 and R06 of `depth_rules`, and R20."""

from __future__ import annotations

import math
from collections.abc import Iterator

from bnlm.doctor.depth_rules import ORTHOGONAL, gradient_findings, module_of, over_time, scale_findings
from bnlm.doctor.finding import HEALTHY, Finding, in_words, of_size, percent
from bnlm.doctor.history import History
from bnlm.doctor.output_rules import was_trained_before
from bnlm.doctor.symmetry_rules import symmetry_findings
from bnlm.doctor.weight_decay import blamed_on_decay
from bnlm.stats import RELU_LIKE

#: R03 before training. Healthy at gain 5/3: 19 to 21 % in the first layer, 5 to 10 % in the others.
FLAT_FIRST, FLAT_LATER, FLAT_CRITICAL = 0.4, 0.3, 0.9
#: R03: activations that flatten smoothly.
SMOOTH = frozenset({"tanh", "sigmoid", "softsign"})
#: R03: std of the inputs of an output, below which it is its bias alone that makes it flat: what is rare starts so.
PRIOR = 1.0
#: R03 of clamps, which keep their full slope up to them. Healthy at gain 5/3: 55 %.
CLAMPED = 0.7
#: R03 of clamps that begin at zero, where half of the outputs are rightly.
CLAMPED_ABOVE = 0.85
#: R04 in the first batch alone, in which single units may rightly be silent.
DEAD_CRITICAL = 0.8
#: R04: activations without any slope below zero.
HARD = ("relu", "relu6", "threshold")
#: R04 of a layer whose inputs are so many standard deviations below zero on average, and that passes hardly any on:
#: mean² over mean square, no more than the share above zero, is 0.014 beyond 2 and 0.0008 beyond 3.
BELOW, SPARSE_WARNING, SPARSE_CRITICAL = 2.0, 0.01, 0.003
#: R03: mean over std of what comes to an activation, where it is the bias that makes it flat.
ASIDE = 2.0
#: R09 of the first step, log10. AdamW moves every weight by its rate then: 1e-2 on weights of std 0.05 is -0.7.
FIRST_STEP = -0.3
#: R09 of the first step: below this share of one over the root of the inputs, weights are small, not steps large.
TINY = 0.1


def initial_findings(history: History) -> Iterator[Finding]:
    """Yield what is wrong with the first observed step; nothing if it is not step 0."""
    if history.first is None or history.first.step > 0 or history.observed > 1:
        return
    yield from _saturated(history)
    yield from _dead(history)
    yield from scale_findings(history)
    yield from gradient_findings(history)
    yield from _first_step(history)
    yield from symmetry_findings(history)


def is_judged_by_the_loss(history: History, layer: str) -> bool:
    """Return whether this is the output, a probability, of which binary cross-entropy tells if it is wrong."""
    output = history.first.output if history.first is not None else None
    return layer in history.outputs and output is not None and output.kind == "binary_cross_entropy"


def _saturated(history: History) -> Iterator[Finding]:
    assert history.first is not None
    kinds, shares = history.first.kinds, history.first.of("saturation")
    elements = history.first.of("activation_elements")
    smooth = [layer for layer in shares if kinds.get(layer) in SMOOTH and not _is_aside(layer, elements)]
    spreads = history.first.of("preactivation_std")
    smooth = [n for n in smooth if not (is_judged_by_the_loss(history, n) and spreads.get(n, math.inf) < PRIOR)]
    smooth = [n for n in smooth if math.isfinite(spreads.get(n, 0.0))]  # what is nan or infinite is R08's
    flat = [layer for layer in smooth if shares[layer] > (FLAT_FIRST if layer == smooth[0] else FLAT_LATER)]
    for layer, both_sides in history.facts.clamps.items():
        if shares.get(layer, 0.0) > (CLAMPED if both_sides else CLAMPED_ABOVE):
            flat.append(layer)
    if not flat:
        return
    worst = max(shares[layer] for layer in flat)
    because = ""
    change = (
        "Use init=kaiming_normal (std gain / sqrt(fan_in), gain 5/3 for tanh), or put a BatchNorm before each "
        "(normalization=batch)."
    )
    if over_time(history, flat):
        change = f"{ORTHOGONAL}, and the others with std gain / sqrt(fan_in), gain 5/3 for tanh."
    weight = history.facts.parameters.get(history.facts.weight_of.get(flat[0], ""))
    if weight is not None and weight.fan_in > 1:
        gain, said = (5 / 3, "5/3") if kinds[flat[0]] == "tanh" else (1.0, "1")
        wanted = gain / math.sqrt(weight.fan_in)
        if weight.std > 1.5 * wanted:
            because = (
                f" The weights before the first of them have std {weight.std:.2g}; gain {said} over the root of their "
                f"{weight.fan_in} inputs is {wanted:.2g}."
            )
        elif abs(history.first.of("preactivation_mean").get(flat[0], 0.0)) > ASIDE * spreads.get(flat[0], math.inf):
            change = f"Look at the biases: what comes to {flat[0]} is far from zero beside its spread."
        elif flat[0] in smooth[:1]:
            change = "Bring the inputs to mean 0 and variance 1: the weights that they meet first are not too large."
    severity = "critical" if worst > FLAT_CRITICAL else "warning"
    gates = are_gates(flat, kinds) and flat[-1] != list(kinds)[-1]
    if gates or are_ends(flat, history) or was_trained_before(history):
        severity = "note"
    yield Finding(
        "R03", severity, in_words(flat), 0, worst, FLAT_LATER,
        f"{in_words(flat)}: {percent([shares[n] for n in flat])} of the {kinds[flat[0]]} outputs are on their flat "
        f"part before any training, where hardly any gradient passes.{because}",
        change,
    )  # fmt: skip


def are_gates(layers: list[str], kinds: dict[str, str]) -> bool:
    """Return whether these are sigmoids beside activations of another kind: gates, which may be open or shut."""
    return all(kinds[layer] == "sigmoid" for layer in layers) and any(kind != "sigmoid" for kind in kinds.values())


def are_ends(layers: list[str], history: History) -> bool:
    """Return whether these are outputs of a network that another follows: actions or pixels, which may be extreme."""
    return all(history.facts.weight_of.get(layer) in history.facts.ends for layer in layers)


def _is_aside(layer: str, elements: dict[str, float]) -> bool:
    """Return whether this is a further call of a layer with much less: boundary points beside those within."""
    name = module_of(layer)
    return name != layer and elements.get(layer, 0.0) < elements.get(name, 0.0) / 2


def _dead(history: History) -> Iterator[Finding]:
    assert history.first is not None
    kinds = history.first.kinds
    shares = history.first.of("dead_units")
    below = history.first.of("preactivation_mean")
    dead = [
        layer
        for layer, share in shares.items()
        # What bends smoothly has a slope just below zero.
        if share > DEAD_CRITICAL
        and kinds.get(layer) in RELU_LIKE
        and (kinds[layer] in HARD or below.get(layer, -math.inf) < -1)
    ]
    change = "Look at the biases before them and at the scale of the inputs: init=kaiming_normal, init.bias=zeros."
    if dead:
        worst = max(shares[layer] for layer in dead)
        yield Finding(
            "R04", "critical", in_words(dead), 0, worst, DEAD_CRITICAL,
            f"{in_words(dead)}: {worst:.0%} of the {kinds[dead[0]]} units respond to no example of the first batch, "
            "and get no gradient.",
            change,
        )  # fmt: skip
        return
    silent = _hardly_responding(history)
    if silent:
        layers, least = list(silent), min(silent.values())
        means, stds = history.first.of("preactivation_mean"), history.first.of("preactivation_std")
        lowest = max(-means[layer] / stds[layer] for layer in layers)
        yield Finding(
            "R04", "critical" if least < SPARSE_CRITICAL else "warning", in_words(layers), 0, least, SPARSE_WARNING,
            f"{in_words(layers)}: what comes to the {kinds[layers[0]]} is on average up to {lowest:.1f} standard "
            "deviations below zero in the first batch, so that next to nothing of it passes, and no gradient.",
            change,
        )  # fmt: skip


def _hardly_responding(history: History) -> dict[str, float]:
    """Return the layers that hardly respond, and their mean² over their mean square."""
    assert history.first is not None
    found = {}
    means, stds = history.first.of("activation_mean"), history.first.of("activation_std")
    before, spread = history.first.of("preactivation_mean"), history.first.of("preactivation_std")
    for layer in history.first.of("dead_units"):  # one number for each example has no units, and is part of a loss
        mean = means.get(layer, math.nan)
        if history.first.kinds.get(layer) == "relu" and before.get(layer, 0.0) < -BELOW * spread.get(layer, math.inf):
            share = mean**2 / (mean**2 + stds[layer] ** 2) if mean > 0 else 0.0
            if share < SPARSE_WARNING:
                found[layer] = share
    return found


def _first_step(history: History) -> Iterator[Finding]:
    assert history.first is not None
    facts = history.facts.parameters
    far = {
        name: change
        for name, change in history.first.of("update_to_data").items()
        if name in facts and facts[name].role == "hidden" and facts[name].std > 0 and change > FIRST_STEP
    }
    hidden = sum(one.role == "hidden" and one.std > 0 for one in facts.values())
    # One that starts smaller than all others, for it has many inputs, is soon as large as what it needs.
    if far and (3 * len(far) > hidden or max(far.values()) > 0):
        name, worst = max(far.items(), key=lambda item: item[1])
        std, usual = facts[name].std, 1 / math.sqrt(max(facts[name].fan_in, 1))
        because, change = "", "Divide optimizer.lr by 10 or more, or warm it up."
        if facts[name].fan_in and std < TINY * usual:
            because = f" They are small: std {std:.2g} at {name}, where one over the root of its inputs is {usual:.2g}."
            change = (
                "Draw the weights at the scale that keeps the signal (init=kaiming_normal; in torch "
                "nn.init.kaiming_normal_). If they are that small on purpose, divide optimizer.lr by 10 or warm it up."
            )
        found = Finding(
            "R09", "critical", in_words(list(far)), 0, worst, FIRST_STEP,
            f"{in_words(list(far))}: the first step alone changes the weights by {of_size(worst)}, so what "
            f"they were initialised to is gone; {HEALTHY}.{because}",
            change,
        )  # fmt: skip
        yield blamed_on_decay(found, history, facts[name].group)
