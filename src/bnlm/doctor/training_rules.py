"""Rules over a window of observed steps, of activations and gradients: R03, R04, R06 while training."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping

from bnlm.doctor.depth_rules import advice_on_gradients, chains_of, is_one_leap, steep, whole_gradient
from bnlm.doctor.finding import Finding, in_words, percent
from bnlm.doctor.history import WINDOW, History
from bnlm.doctor.initial_rules import HARD, SMOOTH, are_ends, are_gates, is_judged_by_the_loss
from bnlm.doctor.loss_rules import TRAINED
from bnlm.doctor.weight_scale_rules import small_weights
from bnlm.stats import RELU_LIKE

#: R03: SageMaker's SaturatedActivation and DeepDiagnosis warn at half of a layer.
FLAT_WARNING, FLAT_CRITICAL = 0.5, 0.9
#: R04: ReLU networks with torch's default init sit at 20 to 33 % and train well.
DEAD_WARNING, DEAD_CRITICAL = 0.4, 0.8
#: R04: share of a layer that has died since the first batch, less than which was so from the start.
DIED_SINCE = 0.2
#: R04: observed steps in which a unit has to be silent.
DEAD_PATIENCE = 10
#: R03, R04: below this share of its first value the loss shows that the units left are enough: no more than a note.
LEARNED = 0.5
#: R04: below this share of its first value a loss shows that a layer which is dead as a whole is not needed.
WELL_LEARNED = 0.1
#: R03: observed steps in which outputs that saturate have to be nearer to the targets than a constant is.
FEW = 3
#: R06: losses to wait for before the lack of a fall counts.
PATIENCE = 100


def training_findings(history: History) -> Iterator[Finding]:
    """Yield what is wrong with activations and gradients now; nothing before the first steps are over."""
    if not history.warm:
        return
    yield from saturated(history)
    yield from dead(history)
    yield from _gradient(history)
    yield from small_weights(history)


def _kinds(history: History) -> dict[str, str]:
    return history.recent[-1].kinds if history.recent else {}


def has_learned(history: History) -> bool:
    """Return whether the loss has fallen to half of its start."""
    return history.losses.improves() and history.losses.recent(50) < LEARNED * history.losses.first


def _sure(history: History) -> set[str]:
    """Return the probabilities that are sure of themselves rightly, for all that is known.

    The loss function tells of one that is sure and wrong, or the loss falls, or has fallen to half.
    """
    if has_learned(history) or history.losses.falls(100):
        return history.outputs | _reaching(history)
    return {layer for layer in history.outputs if is_judged_by_the_loss(history, layer)} | _reaching(history)


def _reaching(history: History) -> set[str]:
    """Return the activation that outputs come straight out of, where they are nearer to the targets than a constant."""
    last = [o.output for o in history.recent if o.output is not None][-FEW:]
    kinds = _kinds(history)
    if not last or not kinds or not all(o.activation for o in last):
        return set()
    if not statistics.fmean(o.loss for o in last) < statistics.fmean(o.constant for o in last):
        return set()
    layer = next(reversed(kinds))
    return {layer} if kinds[layer] == last[-1].activation else set()


def saturated(history: History) -> Iterator[Finding]:
    """Yield R03."""
    kinds, shares = _kinds(history), history.median("saturation")
    limits = dict.fromkeys(shares, FLAT_WARNING) | dict.fromkeys(history.outputs, FLAT_CRITICAL)
    limits |= dict.fromkeys(_sure(history), 1.0)
    flat = [layer for layer in shares if kinds.get(layer) in SMOOTH and shares[layer] > limits[layer]]
    flat += [layer for layer in shares if history.facts.clamps.get(layer) and shares[layer] > FLAT_CRITICAL]
    if flat:
        worst = max(shares[layer] for layer in flat)
        severity = "critical" if worst > FLAT_CRITICAL else "note" if has_learned(history) else "warning"
        if (has_learned(history) and are_gates(flat, kinds)) or are_ends(flat, history):
            severity = "note"
        yield Finding(
            "R03", severity, in_words(flat), history.step, worst, FLAT_WARNING,
            f"{in_words(flat)}: {percent([shares[n] for n in flat])} of the {kinds[flat[0]]} outputs stay on their "
            "flat part, where hardly any gradient passes.",
            "Lower optimizer.lr; if they were flat from the start, a smaller gain (init=kaiming_normal) or "
            "normalization=batch.",
        )  # fmt: skip


def dead(history: History) -> Iterator[Finding]:
    """Yield R04."""
    if history.observed < DEAD_PATIENCE:
        return
    kinds, last = _kinds(history), history.recent[-1].of("dead_units")
    # A layer that falls silent as a whole is seen long before the window over single units has moved on.
    shares = last | {layer: 1.0 for layer in _silent(history) if layer in last}
    shares = {layer: share for layer, share in shares.items() if share > DEAD_WARNING}
    if not shares:
        return
    # A layer that nobody has called before is not dead after one step.
    seen = Counter(layer for observation in history.recent for layer in observation.of("dead_units"))
    sure = _sure(history)
    # What bends smoothly has a slope just below zero.
    below = history.median("preactivation_mean")
    smooth = [n for n in shares if kinds.get(n) in RELU_LIKE and kinds[n] not in HARD and below.get(n, -math.inf) >= -1]
    layers = [n for n in shares if seen[n] >= DEAD_PATIENCE and n not in sure and n not in smooth]
    if layers:
        worst = max(shares[layer] for layer in layers)
        severity = "critical" if worst > DEAD_CRITICAL else "note" if has_learned(history) else "warning"
        if history.losses.recent(50) < WELL_LEARNED * history.losses.first:
            severity = "note"
        begun = _from_the_start(history, {layer: shares[layer] for layer in layers})
        if severity == "note" and begun:
            severity = "warning"
        at_ends = kinds.get(layers[0]) in SMOOTH
        yield Finding(
            "R04", severity, in_words(layers), 0 if begun else history.step, worst,
            DEAD_WARNING,
            f"{in_words(layers)}: {percent([shares[n] for n in layers])} of the "
            f"{kinds.get(layers[0], 'activation')} units "
            f"{'were on their flat part for every' if at_ends else 'have not responded to any'} example of the last "
            f"{min(history.observed, 20)} observed steps{', nor of the first' * begun}; they learn nothing more.",
            f"{'L' if begun else 'Lower optimizer.lr, l'}ook at the biases and the scale of the inputs, use "
            "init=kaiming_normal, or "
            + ("a normalization before it." if at_ends else
               "an activation without a dead side (model.activation=leaky_relu or gelu)."),
        )  # fmt: skip


def killed(history: History) -> Iterator[Finding]:
    """Yield R04 of units that responded once."""
    return (finding for finding in dead(history) if finding.step > 0)


def _from_the_start(history: History, shares: Mapping[str, float]) -> bool:
    """Return whether so much of the worst layer has never responded: what a network prunes while it learns has."""
    first, worst = history.first, max(shares, key=lambda layer: shares[layer])
    if first is None or first.step > 0 or history.observed > WINDOW or first.kinds.get(worst) not in RELU_LIKE:
        return False
    begun = first.of("dead_units").get(worst, 0.0)
    return begun > DEAD_WARNING and shares[worst] - begun < DIED_SINCE


def _silent(history: History) -> list[str]:
    """Return the layers whose outputs were all zero in the last three observed steps."""
    kinds, last = _kinds(history), [o.of("activation_std") for o in list(history.recent)[-3:]]
    return [layer for layer in last[-1] if kinds.get(layer) in RELU_LIKE and all(o.get(layer) == 0 for o in last)]


def _gradient(history: History) -> Iterator[Finding]:
    # What was trained before may have come to its end.
    trained = history.reference.is_known and history.losses.first < TRAINED * abs(history.reference.loss)
    if history.losses.improves() or history.losses.steps < PATIENCE or trained:
        return
    kinds, stds = _kinds(history), history.median("activation_gradient_std")
    outputs = history.median("activation_std")
    elements = history.recent[-1].of("activation_elements")
    kinds_once = dict.fromkeys(kinds.values())
    chains = [(kind, chain) for kind in kinds_once for chain in chains_of(kind, history, history.recent[-1], stds)]
    for kind, chain in chains:
        if len(chain) < 3 or not stds[chain[-1]] > 0 or stds[chain[0]] == 0:
            continue  # none at all is no matter of scale: cut off, or dead
        ratio = stds[chain[0]] / stds[chain[-1]]
        if 0.1 <= ratio <= 10 or is_one_leap(chain, [stds[n] for n in chain], [outputs.get(n, 0.0) for n in chain]):
            continue
        whole = whole_gradient(ratio, chain, elements) if ratio < 1 else ratio
        if 0.01 <= whole < 1 and not steep(whole, kind, chain):
            continue
        critical = not 0.01 <= whole <= 100
        yield Finding(
            "R06", "critical" if critical else "warning", in_words(chain), history.step, ratio,
            0.1 if ratio < 1 else 10,
            f"the loss gradient {'vanishes' if ratio < 1 else 'explodes'} on its way back (std {stds[chain[-1]]:.2g} "
            f"at {chain[-1]}, {stds[chain[0]]:.2g} at {chain[0]}), and the loss has not fallen after "
            f"{history.losses.steps} steps.",
            advice_on_gradients(history, chain, ratio < 1),
        )  # fmt: skip
