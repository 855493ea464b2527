"""R05 of weights that are all too large or too small, in stacks so short that no drift with depth can be told."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator

from bnlm.doctor.finding import Finding, in_words
from bnlm.doctor.history import History

#: Of weights that are all large: std times the root of fan_in (1.4 to 1.7 by Kaiming's init), std of an activation.
LARGE_WEIGHTS, LARGE_OUTPUTS = 4.0, 10.0
#: Of weights that are all large: std of an activation from which on that is critical, and which these weights explain.
FAR, TWICE = 100.0, 2.0
#: Of weights that are small from the start: std times the root of fan_in (0.58 by torch's default), std of
#: activations, losses to wait for before the lack of a fall counts.
SMALL_WEIGHTS, SMALL_OUTPUTS, SMALL_PATIENCE = 0.1, 0.05, 250
#: The same of a loss that has fallen, as by what a bias or another term learns: share of the first that it rests at.
LEFT_BY_SMALL = 0.5
#: What to change.
DRAW = (
    "Draw the weights with the gain of the activation (init=kaiming_normal init.gain=auto; in torch "
    "nn.init.kaiming_normal_)."
)
DRAW_LARGER = f"They are too small. {DRAW}"


def large_weights(history: History) -> Iterator[Finding]:
    """Yield R05 of weights that are all far too large: of one or two layers, of which no drift can be told."""
    assert history.first is not None
    hidden = [p for p in history.facts.parameters.values() if p.role == "hidden" and p.std > 0 and p.fan_in > 4]
    stds = history.first.of("activation_std")
    if not hidden or not stds or any(p.feeds_norm for p in hidden):
        return
    scales = {p.name: p.std * math.sqrt(p.fan_in) for p in hidden}
    layer = max(stds, key=lambda name: stds[name] if math.isfinite(stds[name]) else math.inf)
    typical = statistics.median(scales.values())
    overflows = not math.isfinite(stds[layer])
    large = typical > LARGE_WEIGHTS and (stds[layer] > LARGE_OUTPUTS or overflows)
    if large or (typical > TWICE and (stds[layer] > FAR or overflows)):
        largest = max(hidden, key=lambda p: scales[p.name])
        yield Finding(
            "R05", "critical" if stds[layer] > FAR or overflows else "warning", in_words(list(scales)), 0,
            scales[largest.name], LARGE_WEIGHTS if large else TWICE,
            f"the weights start large, with std {largest.std:.2g} at {largest.name} where one over the root of its "
            f"inputs is {1 / math.sqrt(largest.fan_in):.2g}: activations have std {stds[layer]:.2g} at {layer}.",
            DRAW,
        )  # fmt: skip


def large_recurrences(history: History) -> Iterator[Finding]:
    """Yield R05 of recurrent weights of torch that start far too large, where the states are not to be seen."""
    assert history.first is not None
    scales = {
        p.name: p.std * math.sqrt(p.fan_in)
        for p in history.facts.parameters.values()
        if p.role == "hidden" and p.name.rpartition(".")[2].startswith("weight_hh") and p.fan_in > 4
        if f"{p.name.rpartition('.')[0]}.tanh".lstrip(".") not in history.first.kinds
    }
    large = [name for name, scale in scales.items() if scale > LARGE_WEIGHTS]
    if large:
        worst = max(large, key=lambda name: scales[name])
        one = history.facts.parameters[worst]
        yield Finding(
            "R05", "warning", in_words(large), 0, scales[worst], LARGE_WEIGHTS,
            f"the recurrent weights start large, with std {one.std:.2g} at {worst} where one over the root of its "
            f"inputs is {1 / math.sqrt(one.fan_in):.2g}: gates and states saturate, and little comes back in time.",
            "Draw them orthogonal (torch nn.init.orthogonal_), or leave them as torch does.",
        )  # fmt: skip


def small_weights(history: History) -> Iterator[Finding]:
    """Yield R05 where weights that were far too small from the start let little pass, and the loss stands still."""
    if history.first is None or history.first.step > 0:
        return
    losses = history.losses
    rests = losses.recent(50) > LEFT_BY_SMALL * losses.first > 0 and not losses.falls(SMALL_PATIENCE // 2)
    if losses.steps < SMALL_PATIENCE or (losses.improves() and not rests):
        return
    hidden = {p.name: p for p in history.facts.parameters.values() if p.role == "hidden" and p.std > 0}
    scales = {name: p.std * math.sqrt(p.fan_in) for name, p in hidden.items() if p.fan_in and not p.feeds_norm}
    stds = history.first.of("activation_std")
    if not scales or not stds:
        return
    if statistics.median(scales.values()) > SMALL_WEIGHTS or min(stds.values()) > SMALL_OUTPUTS:
        return
    smallest = min(scales, key=lambda name: scales[name])
    usual = 1 / math.sqrt(hidden[smallest].fan_in)
    layer = min(stds, key=lambda name: stds[name])
    yield Finding(
        "R05", "warning", in_words(list(scales)), history.step, scales[smallest], SMALL_WEIGHTS,
        f"{in_words(list(scales))}: the weights started small, with std {hidden[smallest].std:.2g} at {smallest} where "
        f"one over the root of its inputs is {usual:.2g}, so that activations had std {stds[layer]:.2g} at {layer}; "
        f"after {losses.steps} steps the loss "
        + (f"rests at {losses.recent(50):.3g}." if losses.improves() else "has hardly fallen."),
        DRAW_LARGER,
    )  # fmt: skip
