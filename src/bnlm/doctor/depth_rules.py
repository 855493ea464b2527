"""What becomes of activations and of their gradients from layer to layer: R05 and R06 at the start."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from itertools import pairwise

from bnlm.doctor.drawn_weights import are_as_drawn, are_drawn_otherwise
from bnlm.doctor.finding import Finding, in_words
from bnlm.doctor.history import History
from bnlm.doctor.observation import Observation
from bnlm.doctor.output_rules import was_trained_before
from bnlm.doctor.weight_scale_rules import large_recurrences, large_weights

#: R05: std of the last activation over the first's.
DRIFT_WARNING, DRIFT_CRITICAL = 10.0, 100.0
#: R06: std of the loss gradient at the first activation over the last's.
GRADIENT_NOTE, GRADIENT_CRITICAL = 10.0, 100.0
#: R06: factor between neighbours that is no matter of depth, where that of their outputs is below the second.
LEAP, SAME_SCALE = 30.0, 10.0
#: R05 and R06: what to change.
_GAIN = (
    "Draw the weights with the gain of the activation (init=kaiming_normal init.gain=auto; in torch "
    "nn.init.kaiming_normal_)"
)
#: The same, and R03, in a recurrent network.
ORTHOGONAL = "Draw the weights that carry the state from step to step orthogonal (in torch nn.init.orthogonal_)"
#: How often a recurrent cell is called in a forward at least.
CALLS_OF_A_CELL = 4
#: R05, R06: what fades is no more than a note unless it loses this factor per layer, or the second over all of them.
#: torch's default init keeps 0.41 per ReLU layer, 0.58 where the slope at zero is 1, and 0.29 per GELU or SiLU layer:
#: six of them train well.
KEPT_PER_LAYER, KEPT = 0.25, 1e-4
KEPT_BY_KIND = {
    **dict.fromkeys(("relu", "leaky_relu", "prelu"), 0.33),
    "sigmoid": 0.5,
    **dict.fromkeys(("tanh", "softsign", "hardtanh", "elu", "celu", "selu"), 0.46),
}
#: R06 of weights as torch draws them: factor below that, for poolings take their share too. The same of R05, for what
#: lies beyond the edges of a map is zero.
MARGIN_AS_DRAWN, DRIFT_AS_DRAWN = 0.2, 0.5


def _chains(history: History, statistic: str) -> Iterator[tuple[str, list[str], list[float]]]:
    """Yield each kind of activation with several layers, the layers in forward order, and their statistic."""
    assert history.first is not None
    kinds, values = history.first.kinds, history.first.of(statistic)
    graded = history.first.of("activation_gradient_std")  # a network that stands beside has none
    # Beside weights that start at zero on purpose nothing passes: no matter of scale.
    of_weights = history.first.of("gradient_std")
    opens = any(p.zero and of_weights.get(p.name, 0.0) > 0 for p in history.facts.parameters.values())
    for kind in dict.fromkeys(kinds.values()):
        # Sigmoids are gates, beside others; and what they return has a scale of its own.
        of_sigmoids = kind == "sigmoid" and statistic == "activation_gradient_std" and set(kinds.values()) == {kind}
        if kind in ("sigmoid", "softplus") and not of_sigmoids:
            continue
        for of_network in chains_of(kind, history, history.first, values):
            chain = [layer for layer in of_network if not graded or layer in graded]
            chain = [layer for layer in chain if not opens or values[layer] != 0]
            if len(chain) >= 3:
                yield kind, chain, [values[layer] for layer in chain]


def chains_of(kind: str, history: History, observation: Observation, values: dict[str, float]) -> list[list[str]]:
    """Return the layers of a kind that have a value, by network and in forward order.

    Gradients come as the backward pass meets them. Without those that return one number for each example, and so have
    no units: a hinge is part of a loss.
    """
    units = observation.of("dead_units")
    has_units = kind != "relu" or not units
    chains: dict[int, list[str]] = {}
    for layer, of_kind in observation.kinds.items():
        if of_kind == kind and layer in values and (has_units or layer in units):
            network_of = history.facts.network_of
            network = network_of.get(layer, network_of.get(module_of(layer), 0))
            chains.setdefault(network, []).append(layer)
    return [of_pass for chain in chains.values() for of_pass in _passes(chain)]


def _passes(chain: list[str]) -> list[list[str]]:
    """Return the layers of each pass by themselves where modules are called two or three times.

    A batch and a single boundary point, or a pair: their losses are means over other numbers of examples.
    """
    calls: dict[str, list[str]] = {}
    for layer in chain:
        calls.setdefault(layer.removeprefix(module_of(layer)), []).append(layer)
    apart = 1 < len(calls) < CALLS_OF_A_CELL and len(calls.get("", [])) >= 3
    return list(calls.values()) if apart else [chain]


def module_of(layer: str) -> str:
    """Return the name of a layer without the number of the call."""
    module, _, call = layer.rpartition("_")
    return module if call.isdigit() else layer


def steep(ratio: float, kind: str, chain: list[str], margin: float = 1.0) -> bool:
    """Return whether what fades by this ratio over a chain of activations does so faster than by a usual init.

    Args:
        ratio: Of the standard deviations at both ends.
        kind: Of the activations.
        chain: The layers.
        margin: Factor that it has to be below that, unless next to nothing is left.
    """
    kept = KEPT_BY_KIND.get(kind, KEPT_PER_LAYER)
    return ratio < max(margin * kept ** (len(chain) - 1), KEPT)


def whole_gradient(ratio: float, chain: list[str], elements: dict[str, float]) -> float:
    """Return the ratio of the norms from that of the standard deviations, where the first layer has more elements.

    On a large map each position has a small part of the gradient, and behind a pooling most have none: no less comes
    back for that.
    """
    return ratio * math.sqrt(max(1.0, elements.get(chain[0], 1.0) / elements.get(chain[-1], 1.0)))


def is_one_leap(chain: list[str], gradients: list[float], outputs: list[float]) -> bool:
    """Return whether the first of these gradients differs from the last by one leap alone.

    Between two neighbours whose outputs are as large as each other: those are not one after the other, but in two
    passes through a network, or in two branches, whose losses do not count the same. Not between two modules of one
    nn.Sequential, which are.

    Args:
        chain: The layers, in forward order.
        gradients: Their std.
        outputs: Std of the outputs.
    """
    steps = [a / b if b > 0 else math.inf if a > 0 else 1.0 for a, b in pairwise(gradients)]
    vanishes = gradients[0] < gradients[-1]
    at = min(range(len(steps)), key=lambda i: steps[i] if vanishes else -steps[i])
    if _follow_each_other(chain[at], chain[at + 1]):
        return False
    rest = math.prod(step for i, step in enumerate(steps) if i != at)
    alike = 1 / SAME_SCALE <= outputs[at] / max(outputs[at + 1], sys.float_info.min) <= SAME_SCALE
    leaps = steps[at] < 1 / LEAP if vanishes else steps[at] > LEAP
    return leaps and alike and 1 / GRADIENT_NOTE <= rest <= GRADIENT_NOTE


def _follow_each_other(layer: str, following: str) -> bool:
    """Return whether two layers are modules by numbers in the same one, each called once."""
    parents, names = zip(*(name.rpartition(".")[::2] for name in (layer, following)), strict=True)
    return len(set(parents)) == 1 and all(name.isdigit() for name in names)


def over_time(history: History, chain: list[str]) -> bool:
    """Return whether there are more layers than weights: of a recurrent cell, which may learn from its last steps.

    A network that is called two or three times has as many layers, and each weight but once in a call.
    """
    weights = sum(parameter.role != "vector" for parameter in history.facts.parameters.values())
    weights += sum(tensor.ndim >= 2 for tensor in history.facts.unregistered.values())
    return 0 < weights < len(chain) and len(chain) >= CALLS_OF_A_CELL * len(set(map(module_of, chain)))


def advice_on_gradients(history: History, chain: list[str], vanish: bool) -> str:
    """Return what to change where gradients vanish, or explode, on their way back (R06)."""
    if over_time(history, chain):
        return f"{ORTHOGONAL}, " + ("or use a GRU or an LSTM." if vanish else "and clip the gradients.")
    keep = f"{_GAIN}, add a normalization or residual connections"
    return f"{keep}." if vanish else f"{keep}; clip the gradients of a recurrent network."


def scale_findings(history: History) -> Iterator[Finding]:
    """Yield R05 of the start."""
    drifts = list(_drift(history))
    yield from drifts or large_weights(history)
    yield from large_recurrences(history)


def _drift(history: History) -> Iterator[Finding]:
    assert history.first is not None
    trained = was_trained_before(history)
    for kind, chain, stds in _chains(history, "activation_std"):
        if not stds[0] > 0:
            continue
        ratio = stds[-1] / stds[0]
        if not (ratio < 1 / DRIFT_WARNING or ratio > DRIFT_WARNING):
            continue
        fades = ratio < 1
        far = ratio < 1 / DRIFT_CRITICAL or ratio > DRIFT_CRITICAL
        kept = ratio / history.facts.spread_thin
        slowly = fades and not steep(kept, kind, chain, DRIFT_AS_DRAWN if are_as_drawn(history.facts) else 1.0)
        slowly &= not are_drawn_otherwise(history.facts)  # by torch's default init too much fades in many that learn
        slowly |= trained or history.facts.frozen
        yield Finding(
            "R05", "note" if slowly else "critical" if far else "warning", in_words(chain), 0, ratio,
            1 / DRIFT_WARNING if fades else DRIFT_WARNING,
            f"activations {'fade' if fades else 'blow up'} with depth: std {stds[0]:.2g} at {chain[0]}, "
            f"{stds[-1]:.2g} at {chain[-1]}.",
            f"{ORTHOGONAL}, or use a GRU or an LSTM."
            if over_time(history, chain)
            else f"{_GAIN}, or normalize (normalization=batch or layer); in a residual network scale each branch by "
            "1 / sqrt(2 x layers).",
        )  # fmt: skip


def gradient_findings(history: History) -> Iterator[Finding]:
    """Yield R06 of the start."""
    assert history.first is not None
    elements = history.first.of("activation_elements")
    for kind, chain, stds in _chains(history, "activation_gradient_std"):
        if not stds[-1] > 0 or not stds[0] >= 0:
            continue
        ratio = stds[0] / stds[-1]
        vanishes = ratio < 1
        if not (ratio < 1 / GRADIENT_NOTE or ratio > GRADIENT_NOTE):
            continue
        outputs = history.first.of("activation_std")
        if is_one_leap(chain, stds, [outputs.get(layer, 0.0) for layer in chain]):
            continue
        whole = whole_gradient(ratio, chain, elements)
        drawn = MARGIN_AS_DRAWN if are_as_drawn(history.facts) else 1.0
        fades = steep(whole, kind, chain, drawn) and not over_time(history, chain)
        far = whole < 1 / GRADIENT_CRITICAL and fades
        critical = (far or ratio > GRADIENT_CRITICAL) and kind != "sigmoid"
        limit = GRADIENT_CRITICAL if critical else GRADIENT_NOTE
        yield Finding(
            "R06", "critical" if critical else "note", in_words(chain), 0, ratio,
            1 / limit if vanishes else limit,
            f"the loss gradient {'vanishes' if vanishes else 'explodes'} on its way back: std {stds[-1]:.2g} at "
            f"{chain[-1]}, {stds[0]:.2g} at {chain[0]}.",
            advice_on_gradients(history, chain, vanishes),
        )  # fmt: skip
