"""R10: steps too small to learn by."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from itertools import takewhile

from bnlm.doctor.finding import HEALTHY, Finding, in_words, power_of_ten
from bnlm.doctor.history import History
from bnlm.doctor.weight_decay import decay_of
from bnlm.doctor.weight_updates import hidden_updates

#: log10 of update:data. gradsnitch and others; a rate of 1e-3 of the healthy one reads -5.1 to -5.7.
SMALL_WARNING, SMALL_LATER, SMALL_CRITICAL = -4.0, -3.15, -5.0
#: Share of the reference that the first losses are above, of a network that knows little.
FRESH = 0.85
#: Losses to wait for before the lack of a fall counts, and before the later limit holds, or this share of the run.
PATIENCE, LATER, LATER_SHARE = 100, 250, 0.9
#: Where there is a gradient, and no weight changes at all.
MOVES_NOT = (
    "Look whether optimizer.step() is called, and zero_grad() before backward() rather than between the two; whether "
    "the optimizer's lr is 0; and whether weights are so large that a step is lost in rounding."
)
#: How the advice begins where the steps are held back: by a schedule, by clipping.
SCHEDULES = ("Stretch the schedule", "Shorten the warm-up")
CLIP_LESS = "Raise trainer.gradient_clip_val"
#: Of a loss that falls, late in the run: update:data as it is at the highest rate (healthy: -2.2 to -3.4), share of the
#: reference left, and share that is most of it.
SLOW, SLOW_LEFT, MOST_LEFT = -3.5, 0.3, 0.7
#: Share of the reference that the first losses of a network trained before are below.
HALF = 0.5
#: Where no reference is known: share of all that was learned which the last third of the steps has brought, nearly as
#: much as a straight line brings; of steps below SMALL_WARNING.
STILL_UNKNOWN, STILL_SMALL = 0.2, 0.1
#: Of Adam's eps (1e-8; some take 1e-4 to 1e-3): above which it may outweigh gradients, update:data that it explains.
LARGE_EPS, SMALL_BY_EPS = 1e-2, -3.0
#: Share of the gradient that clipping leaves of which little is to be expected, and that makes steps small.
CLIPPED, HELD_BACK = 0.05, 0.25
#: Of a schedule that ends early: share of the highest rate, observed steps, begun before and lasting for these shares
#: of the run, share of the reference that is left.
ENDED, ENDED_OBSERVED, ENDED_BEFORE, ENDED_FOR, ENDED_LEFT = 0.02, 4, 0.4, 0.15, 0.3
#: The share left of the first losses where the loss of one that knows nothing is not known.
ENDED_UNKNOWN = 0.6
#: Share of the highest rate of a group that another one has: fine-tuning has a tenth to a thousandth.
NEXT_TO_NOTHING = 1.5e-4
#: Share of the highest rate that is none.
NOTHING = 1e-4


def small_update_findings(history: History) -> Iterator[Finding]:
    """Yield R10; nothing before the first steps are over."""
    if history.warm:
        yield from _rates_apart(history)
        yield from _small_updates(history)
        yield from _ended_schedule(history)
        yield from _large_eps(history)
        yield from _clipped_away(history)


def _small_updates(history: History) -> Iterator[Finding]:
    hidden = _without_decay(history, hidden_updates(history))
    if not hidden or (history.losses.steps or history.step) < PATIENCE or history.warms_up:
        return
    typical = statistics.median(hidden.values())
    share = history.recent[-1].lr_share
    usual = statistics.median(observation.lr_share for observation in history.recent)  # as the typical update is
    # Far below chance there is nothing left to learn; far above the start nothing is to be reached by larger steps.
    chance = abs(history.reference.loss)
    far = history.losses.first <= 0.5 * chance or history.losses.recent(50) > 1.5 * max(history.losses.first, chance)
    # What was trained before may have come to its end.
    waited = history.losses.steps >= min(LATER, LATER_SHARE * history.total_steps)
    later = waited and history.losses.first > FRESH * chance
    limit = SMALL_LATER if later else SMALL_WARNING
    if share < 0.1 <= usual and history.is_late:
        return  # a schedule that comes to its end
    if usual < 0.1 <= share:
        return  # one that has begun lately
    if typical < limit and not history.losses.improves() and not far and not history.losses.rises():
        times = f"10^{-3 - typical:.0f}" if -math.inf < typical < SMALL_WARNING - 0.5 else "3 to 10"
        change = (
            f"Multiply optimizer.lr by {times}; look for frozen layers, a large weight decay, and gradients clipped "
            "to next to nothing."
        )
        if history.facts.eps > LARGE_EPS:
            change = _lower_eps(history)
        elif share < 0.1:
            change = (
                f"{SCHEDULES[0]} over the run: it has optimizer.lr at {share:.1g} of its highest. A decay meant "
                "for epochs is not stepped with interval=step."
            )
            if history.only_warms_up:
                change = (
                    f"{SCHEDULES[1]} to a few percent of the run: after {history.step} steps it has optimizer.lr "
                    f"at {share:.1g} of its highest. One meant for steps is stepped with interval=step."
                )
        elif clipped := _left_by_clipping(history):
            change = _clip_less(history, clipped)
        graded = history.recent[-1].of("gradient_std")
        if typical == -math.inf and any(graded.get(name) for name in hidden) and share > NOTHING:
            change = MOVES_NOT
        yield Finding(
            "R10", "critical" if typical < SMALL_CRITICAL else "warning", in_words(list(hidden)), history.step,
            typical, limit,
            f"{_how_little(typical)}, and after {history.losses.steps} steps the loss has hardly fallen.",
            change,
        )  # fmt: skip
    elif usual >= 0.1 and _far_from_done(history, typical - math.log10(usual)):
        yield Finding(
            "R10", "warning", in_words(list(hidden)), history.step, typical, SLOW,
            f"{_how_little(typical)}: after {history.losses.steps} steps the loss has come from "
            f"{history.losses.first:.3g} to {history.losses.recent(50):.3g}, and most is still to be learned.",
            _lower_eps(history) if history.facts.eps > LARGE_EPS
            else _clip_less(history, clipped) if (clipped := _left_by_clipping(history))
            else "Multiply optimizer.lr by 3 to 10.",
        )  # fmt: skip


def _how_little(typical: float) -> str:
    if typical == -math.inf:
        return "most hidden weights do not change at all"
    return f"each step changes the hidden weights by only {power_of_ten(typical)} of their size ({HEALTHY})"


def _rates_apart(history: History) -> Iterator[Finding]:
    """Yield R10 of hidden weights in a group whose rate is next to nothing beside another's."""
    facts = history.facts.parameters
    highest = max((one.lr for one in facts.values()), default=0.0)
    slow = [one.name for one in facts.values() if one.role == "hidden" and 0 < one.lr < highest * NEXT_TO_NOTHING]
    moved = hidden_updates(history)
    if slow and history.recent[-1].lr_share >= 0.1 and all(moved.get(name, 0.0) < SMALL_CRITICAL for name in slow):
        lowest = min(facts[name].lr for name in slow)
        yield Finding(
            "R10", "warning", in_words(slow), history.step, lowest / highest, NEXT_TO_NOTHING,
            f"{in_words(slow)}: the learning rate of their group is {lowest:.1g}, of another {highest:.1g}: they "
            "hardly change.",
            "Raise the rate of that group: a tenth to a hundredth of the others' is usual where layers are fine-tuned. "
            "What is not to learn at all is better frozen (requires_grad=False).",
        )  # fmt: skip


def _large_eps(history: History) -> Iterator[Finding]:
    """Yield R10 where what Adam adds to the root of the squares keeps steps small, and most is left to be learned."""
    if history.facts.eps <= LARGE_EPS or not history.is_late:
        return
    typical = statistics.median(hidden_updates(history).values() or [math.inf])
    left = history.losses.recent(50) / history.losses.scale if history.losses.scale > 0 else 0.0
    if typical < SMALL_BY_EPS and left > SLOW_LEFT:
        yield Finding(
            "R10", "warning", "optimizer", history.step, typical, SMALL_BY_EPS,
            f"each step changes the hidden weights by only {power_of_ten(typical)} of their size, for an eps of "
            f"{history.facts.eps:g} is added to what Adam divides gradients by; after {history.losses.steps} steps "
            f"the loss is {history.losses.recent(50):.3g}.",
            _lower_eps(history),
        )  # fmt: skip


def _clipped_away(history: History) -> Iterator[Finding]:
    """Yield R10 where clipping leaves next to nothing of the gradients, and most is left to be learned."""
    clipped, scale = _left_by_clipping(history), history.losses.scale
    if not (0 < clipped < CLIPPED and history.is_late and history.reference.is_known):
        return
    typical = statistics.median(hidden_updates(history).values() or [math.inf])
    if typical < SMALL_LATER and history.losses.recent(50) > SLOW_LEFT * scale:
        yield Finding(
            "R10", "warning", "optimizer", history.step, clipped, CLIPPED,
            f"the gradients are clipped to {clipped:.1g} of what they typically are: after {history.losses.steps} "
            f"steps the loss is {history.losses.recent(50):.3g}.",
            _clip_less(history, clipped),
        )  # fmt: skip


def _lower_eps(history: History) -> str:
    return f"Lower the optimizer's eps ({history.facts.eps:g}) to 1e-8: it outweighs the gradients."


def _clip_less(history: History, clipped: float) -> str:
    return f"{CLIP_LESS}={history.clip:g}: it leaves {clipped:.1g} of the gradient, and as much of each step."


def _left_by_clipping(history: History) -> float:
    """Return what share of the gradient clipping leaves, where that makes steps smaller by a factor of four; else 0."""
    norms = [norm for o in history.recent if (norm := o.gradient_norm) is not None]
    if history.facts.rescales or not history.clip or not norms:
        return 0.0
    left = history.clip / statistics.median(norms) if statistics.median(norms) > 0 else 1.0
    return left if left <= HELD_BACK else 0.0


def _far_from_done(history: History, typical: float) -> bool:
    """Return whether steps are small, and the loss falls and has most of its way to go after most of the run."""
    if not (typical < SLOW and history.is_late):
        return False
    if not history.reference.is_known or history.reference.has_other_terms:
        return _still_learns(history, STILL_SMALL if typical < SMALL_WARNING else STILL_UNKNOWN)
    recent, reference = history.losses.recent(50), abs(history.reference.loss)
    if typical < SMALL_CRITICAL and history.losses.first > HALF * reference and not history.facts.frozen:
        return recent > SLOW_LEFT * reference  # what has been learned was learned by the output layer alone
    return history.losses.falls(history.losses.steps // 2) and recent > SLOW_LEFT * reference


def _still_learns(history: History, share: float) -> bool:
    """Return whether the last third of the steps has brought more than this share of all that was learned."""
    before, recent = history.losses.tail(len(history.losses.last) // 3 + 25)[:50], history.losses.recent(50)
    return bool(before) and statistics.fmean(before) - recent > share * (history.losses.first - recent) > 0


def _without_decay(history: History, updates: dict[str, float]) -> dict[str, float]:
    """Return how much of the updates is not weight decay.

    What is learned is taken to be at right angles to the weights, along which they decay: before a normalization it is.
    """
    facts = history.facts.parameters
    learned = {}
    for name, update in updates.items():
        decay = decay_of(history, facts[name].group)
        # A tenth of the decay is as little as can be told from it.
        known = decay > 0 and math.isfinite(update)
        squared = max(10 ** (2 * update) - decay**2, (0.1 * decay) ** 2) if known else 0.0
        learned[name] = math.log10(squared) / 2 if known else update
    return learned


def _ended_schedule(history: History) -> Iterator[Finding]:
    """Yield R10 where the rate has fallen to next to nothing early in the run, and most is still to be learned."""
    low = list(takewhile(lambda observation: observation.lr_share <= ENDED, reversed(history.recent)))
    if len(low) < ENDED_OBSERVED or history.warms_up or history.only_warms_up or not history.losses.last:
        return
    since, total = low[-1].step, history.total_steps
    left = history.losses.recent(50) / (abs(history.reference.loss) or math.inf)
    severity = "critical" if left > MOST_LEFT else "warning"
    if all(observation.lr_share < NOTHING for observation in low):
        left = max(left, 1.0)  # whatever has been learned, nothing more is
    elif not history.reference.is_known and left < ENDED_UNKNOWN:
        return
    if since < ENDED_BEFORE * total and history.step - since > ENDED_FOR * total and left > ENDED_LEFT:
        yield Finding(
            "R10", severity, "optimizer", history.step, history.recent[-1].lr_share, ENDED,
            f"the schedule had the learning rate below {ENDED:.0%} of its highest by step {since} of {total:.0f}: "
            f"little is learned since, and the loss is {history.losses.recent(50):.3g}.",
            f"{SCHEDULES[0]} over the run. A decay meant for epochs is not stepped with interval=step.",
        )  # fmt: skip


def no_step(batches: int, moved: bool) -> Finding:
    """Return R10 of a run in which no optimizer has taken a step, or none that Lightning counts: weights have moved."""
    if moved:
        return Finding(
            "R10", "note", "optimizer", 0, math.nan, SMALL_WARNING,
            f"no optimizer step was counted in {batches} batches, though the weights have moved: nothing was observed.",
            "Return the optimizers from configure_optimizers, and in manual optimization call step() of what "
            "self.optimizers() returns: Lightning counts these steps alone.",
        )  # fmt: skip
    return Finding(
        "R10", "critical", "optimizer", 0, -math.inf, SMALL_WARNING,
        f"no optimizer step was taken in {batches} batches, so nothing has changed.",
        "Return the loss from training_step; in manual optimization call step() of what self.optimizers() returns.",
    )  # fmt: skip
