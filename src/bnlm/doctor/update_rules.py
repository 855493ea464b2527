"""R09: steps that move the weights too far."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from itertools import pairwise

from bnlm.doctor.finding import HEALTHY, Finding, in_words, of_size
from bnlm.doctor.history import History
from bnlm.doctor.loss_rules import RISE_STEPS, forgets
from bnlm.doctor.observation import Observation
from bnlm.doctor.optimizer_rules import heavy_decay, left_gradients, long_memory
from bnlm.doctor.spike_rules import of_other_kinds
from bnlm.doctor.standstill_rules import STUCK
from bnlm.doctor.training_rules import DEAD_WARNING, FLAT_WARNING, dead, has_learned, killed, saturated
from bnlm.doctor.weight_decay import blamed_on_decay
from bnlm.doctor.weight_updates import (
    LARGE_CRITICAL,
    LARGE_WARNING,
    OUTPUT_ALLOWANCE,
    allowance,
    is_drawn_small,
    judged_updates,
)

#: R09 of updates beyond the critical limit: share of the first losses that shows that they do no harm.
MOSTLY_LEARNED = 0.25
#: R09 of updates that nothing suffers from, as a note: losses seen, share of the reference that is left to be learned;
#: how far below the limit, which is the table's own then, where units have died, the loss rises, or nothing is learned.
REMARK_FROM, LEFT_TO_LEARN, BESIDE_HARM = 100, 0.1, 0.2
#: R09 of updates beside units that have died: share of the first losses that is left.
LEFT_BESIDE_DEAD = 0.4
#: R09 of updates beyond the critical limit where the loss falls: observed steps that are not enough.
EARLY_OBSERVED = 10
#: R09 of updates above the usual, a warning: share of the reference that the loss rests at, and for how many steps.
#: Language models that are well rest at 0.56 to 0.72.
RESTS_HIGH, RESTS_FOR = 0.75, 200
#: R09 of updates above the usual beside outputs that have become flat: their share at the start.
FLAT_AT_START = 0.3
#: R09: losses to wait for before the lack of a fall counts, at most 0.8 of the run.
LARGE_PATIENCE = 200
#: R09: how far above the limit fewer than a quarter of the weights are, to explain why a loss stands still; output
#: layers alone, which follow whatever the labels are, have to be beyond the critical one.
CLEARLY = 0.3
#: R09 of a run that ended in nan or in dead layers: of its first step, which is large with AdamW, and of any later one.
RUINOUS_FIRST, RUINOUS = -0.5, -1.2
#: R09 of steps after which a layer is dead: those until this one.
DEADLY_UNTIL = 30
#: R09 of a run that ended in nan: times the loss before, three times; update:data.
EXPLODES, EXPLODING = 3.0, -2.0
#: R09 of a run that has hardly learned since its loss rose at the start: share of the reference left, update:data.
SPOILED, SPOILING = 0.75, -1.0
#: The same where the first steps move the typical weight by a fifth of its size: how much the loss rises in four steps.
LEAPS, LEAPING = 0.03, -0.7
#: R09 of weights that have grown: times what they were drawn as, where that was no less than this share of one over the
#: root of their inputs; share of the reference that is left; update:data of the steps that have made them so.
GROWN, DRAWN_SMALL, LEFT_BY_GROWTH, MADE_GROW = 5.0, 0.3, 0.5, -1.5
#: Share of the first losses, and of what knowing nothing costs, that is next to nothing.
ALL_LEARNED = 0.005


def update_findings(history: History) -> Iterator[Finding]:
    """Yield what is wrong with the updates: of a ruined run at once, otherwise once the first steps are over."""
    yield from left_gradients(history)
    yield from _ruinous_updates(history)
    if history.warm:
        yield from heavy_decay(history)
        yield from long_memory(history)
        yield from _large_updates(history)
        yield from _grown_weights(history)
        yield from _remarkable_updates(history)


def _large_updates(history: History, waits_for_more: bool = True) -> Iterator[Finding]:
    if history.recent[-1].lr_share < 0.1:
        return
    judged, allowed = judged_updates(history)
    parameters = history.facts.parameters
    harms = history.losses.steps_above >= RISE_STEPS or _is_at_chance(history)
    limit = LARGE_WARNING - BESIDE_HARM * harms
    large = [name for name, u in judged.items() if u > limit + allowed[name]]
    # Small networks that train well reach -1.3: below the critical limit, something has to suffer.
    # AdamW's first steps are large everywhere, and recurrent networks that train well may stay at chance for 200.
    waits = history.losses.steps < min(LARGE_PATIENCE, 0.8 * history.total_steps)
    # Where most has been learned, a loss moves up and down a little; before, it does not.
    half = history.losses.has_risen and not history.losses.spikes and not has_learned(history)
    rises = history.losses.steps_above > 0 or half or forgets(history)
    # Of many weights a few may be a little above; a loss that stands still has other reasons then.
    beyond = {n: LARGE_WARNING + CLEARLY if parameters[n].role == "hidden" else LARGE_CRITICAL for n in large}
    clearly = 4 * len(large) >= len(judged) or any(judged[n] > beyond[n] + allowed[n] for n in large)
    suffers = (clearly and not (history.losses.improves() or waits)) or rises
    died = list(killed(history))
    suffers = suffers or any(f.severity != "note" for f in [*saturated(history), *died])
    left = history.losses.recent(50) > LEFT_BESIDE_DEAD * history.losses.first
    suffers = suffers or (clearly and left and any(f.value > DEAD_WARNING for f in died))
    extreme = [n for n in large if parameters[n].role == "hidden" and judged[n] > LARGE_CRITICAL + allowed[n]]
    harmless = not rises and history.losses.recent(50) < MOSTLY_LEARNED * history.losses.first
    # The first few are the largest, as where a norm is clipped to what it is far above at the start.
    few = waits_for_more and history.observed <= EARLY_OBSERVED
    harmless = harmless or (few and not rises and history.losses.improves())
    if (extreme and not harmless) or (large and suffers):
        worst = max(large, key=lambda name: judged[name])
        critical = any(judged[name] > LARGE_CRITICAL + allowed[name] for name in large)
        found = _too_large(history.step, large, judged[worst], "critical" if critical else "warning", limit)
        yield blamed_on_decay(found, history, parameters[worst].group)


def _is_at_chance(history: History) -> bool:
    """Return whether nothing has been learned for long."""
    known = history.reference.is_known and history.losses.steps >= LARGE_PATIENCE
    return known and history.losses.recent(100) > STUCK * abs(history.reference.loss)


def _remarkable_updates(history: History) -> Iterator[Finding]:
    """Yield R09, a note, of updates above the usual that nothing suffers from; what something suffers from outranks it.

    A warning where the loss has come to rest far above what is to be learned, or shows the harm in another way. The
    limit is the table's own where units have died.
    """
    if history.recent[-1].lr_share < 0.1:
        return
    judged, allowed = judged_updates(history)
    died = any(killed(history))
    limit = LARGE_WARNING - BESIDE_HARM * died
    parameters = history.facts.parameters
    hidden = [
        name
        for name, u in judged.items()
        if parameters[name].role == "hidden" and u > limit + allowed[name] and not is_drawn_small(parameters[name])
    ]
    left = died or history.losses.recent(50) > LEFT_TO_LEARN * history.losses.scale
    if hidden and 4 * len(hidden) >= len(judged) and left and history.losses.steps >= REMARK_FROM:
        largest = max(judged[name] for name in hidden)
        harm = _harm(history)
        yield Finding(
            "R09", "warning" if harm else "note", in_words(hidden), history.step, largest, limit,
            f"{in_words(hidden)}: each step changes the weights by up to {of_size(largest)}, more than in most "
            f"networks that learn well (10^-3 to 10^-2){harm}.",
            "Divide optimizer.lr by 3 to 10." if harm else
            "Nothing while the loss falls; should it come to rest too high, divide optimizer.lr by 3.",
        )  # fmt: skip


def _harm(history: History) -> str:
    """Return what else tells that the steps are too large, though each alone is no more than a note; else nothing."""
    if rests := _rests_high(history):
        return f", and the loss rests at {_share(rests)} of what knowing nothing costs"
    begun = history.first.of("saturation") if history.first is not None else {}
    now = history.median("saturation")
    if any(f.step > 0 for f in saturated(history)) and any(
        share > FLAT_WARNING and begun.get(layer, 1.0) < FLAT_AT_START for layer, share in now.items()
    ):
        return ", and more than half of the outputs have come to lie on the flat part"
    if any(of_other_kinds(history)):
        return ", and single losses are far from those around them"
    return ""


def _rests_high(history: History) -> float:
    """Return what share of the reference is left late in the run where it is much and no longer falls; else 0."""
    if not (history.is_late and history.reference.is_known and history.losses.steps >= RESTS_FOR):
        return 0.0
    left = history.losses.recent(100) / abs(history.reference.loss)
    return left if left > RESTS_HIGH and not history.losses.falls(RESTS_FOR) else 0.0


def _grown_weights(history: History) -> Iterator[Finding]:
    """Yield R09 where hidden weights have become many times what they were drawn as, and little has been learned.

    Such weights no longer move far beside their size, however large the steps are that have made them so.
    """
    if not (history.is_late and history.reference.is_known and history.largest_step > MADE_GROW):
        return
    left = history.losses.recent(50) / abs(history.reference.loss)
    stds = history.recent[-1].of("data_std")
    drawn = {n: one.std for n, one in history.facts.parameters.items() if one.role == "hidden" and n in stds}
    scales = {n: std * math.sqrt(history.facts.parameters[n].fan_in) for n, std in drawn.items()}
    growth = {n: stds[n] / drawn[n] for n, scale in scales.items() if scale > DRAWN_SMALL}
    if growth and (typical := statistics.median(growth.values())) > GROWN and left > LEFT_BY_GROWTH:
        yield Finding(
            "R09", "warning", in_words(list(growth)), history.step, typical, GROWN,
            f"{in_words(list(growth))}: typically {typical:.0f} times as large as they were drawn, after "
            f"{history.losses.steps} steps that were too large; {_share(left)} of what knowing nothing costs is left.",
            "Divide optimizer.lr by 10 or more, or warm it up.",
        )  # fmt: skip


def _share(left: float) -> str:
    return f"{left:.0%}" if left < 10 else f"{left:.2g} times"


def large_updates_ended(history: History) -> bool:
    """Return whether the updates are of a usual size by now, and the loss has fallen."""
    large = [*_large_updates(history, waits_for_more=False), *_ruinous_updates(history)]
    return history.losses.improves() and not large


def rises_at_start(history: History) -> bool:
    """Return whether the first steps made the loss rise, beyond what batches differ by."""
    early = history.losses.early
    return len(early) >= 6 and (_rises(early[1:6], early[0], 0.1) or max(early) > early[0] + 0.5 * abs(early[0]))


def _rises(losses: Sequence[float], first: float, share: float) -> bool:
    """Return whether losses are above the first by more than a share of it, on average; it may be below zero."""
    return statistics.fmean(losses) > first + share * abs(first)


def _too_large(step: int, names: list[str], largest: float, severity: str, limit: float = LARGE_WARNING) -> Finding:
    return Finding(
        "R09", severity, in_words(names), step, largest, limit,
        f"{in_words(names)}: each step changes the weights by up to {of_size(largest)}; "
        f"{HEALTHY}.",
        "Divide optimizer.lr by 3 to 10, warm it up, or clip the gradients (trainer.gradient_clip_val=1.0).",
    )  # fmt: skip


def _ruinous_updates(history: History) -> Iterator[Finding]:
    """Yield R09 of a run that ended in nan or in dead layers before a window of observed steps was full.

    Also of one whose first steps made the loss rise, and which has hardly learned since: before a normalization weights
    grow by such steps until the rate is no longer too high for them.
    """
    early = history.losses.early
    rose = bool(early) and max(early) > early[0] + 0.5 * abs(early[0])
    leaped = len(early) >= 4 and _rises(early[1:4], early[0], LEAPS) and _leaps(history)
    blown_up = history.losses.non_finite > 0 and rose  # a logarithm of zero does not announce itself
    ruined = blown_up or any(finding.severity == "critical" for finding in dead(history))
    late = history.losses.steps >= LARGE_PATIENCE and history.reference.is_known
    spoiled = (rose or leaped) and late and history.losses.recent(50) > SPOILED * abs(history.reference.loss)
    if history.first is None or not (ruined or spoiled):
        return
    # From bad to worse several times in a row: by steps of whatever size.
    explodes = blown_up and sum(after > EXPLODES * before > 0 for before, after in pairwise(early)) >= 3
    facts = history.facts.parameters
    large: dict[str, float] = {}
    steps = []
    for observation in [history.first, *history.recent]:
        limit = RUINOUS_FIRST if observation.step == 0 else RUINOUS
        for name, u in _hidden(history, observation).items():
            far = SPOILING if facts[name].role == "hidden" else SPOILING + OUTPUT_ALLOWANCE
            least = EXPLODING if explodes else far if spoiled else limit + allowance(facts[name])
            if least < u:
                large[name] = max(u, large.get(name, u))
                steps.append(observation.step)
    if large:
        severity = "critical" if ruined else "warning"
        yield _too_large(steps[0], list(large), max(large.values()), severity)
    elif ruined and not blown_up:
        yield from _deadly_steps(history)


def _deadly_steps(history: History) -> Iterator[Finding]:
    """Yield R09 where a layer has died that was alive at the start, and the typical weight moved too far before."""
    assert history.first is not None
    first, last = history.first.of("dead_units"), history.recent[-1].of("dead_units")
    alive = any(first.get(layer, 1.0) < 0.5 < share for layer, share in last.items())
    for observation in [history.first, *history.recent] if alive else []:
        moved = _hidden(history, observation)
        if moved and observation.step <= DEADLY_UNTIL and statistics.median(moved.values()) > LARGE_WARNING:
            yield _too_large(observation.step, list(moved), max(moved.values()), "warning")
            return


def _hidden(history: History, observation: Observation) -> dict[str, float]:
    """Return update:data in one step, of the hidden weights that do not start at zero; of all where none is hidden."""
    weights = {name: one for name, one in history.facts.parameters.items() if one.role != "vector"}
    judged = {name for name, one in weights.items() if one.role == "hidden"} or set(weights)
    updates = observation.of("update_to_data").items()
    return {name: u for name, u in updates if name in judged and weights[name].std > 0 and u < math.inf}


def _leaps(history: History) -> bool:
    """Return whether the first step moves more than half of the hidden weights far."""
    if history.first is None or history.first.step > 0:
        return False
    moved = _hidden(history, history.first)
    return bool(moved) and statistics.median(moved.values()) > LEAPING


def all_learned(history: History) -> bool:
    """Return whether nothing is left that slow layers should have learned."""
    start = min(history.losses.first, abs(history.reference.loss))
    return history.losses.recent(50) < ALL_LEARNED * start
