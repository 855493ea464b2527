"""Rules over the losses of all steps: R08, R14."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from bnlm.doctor.finding import Finding
from bnlm.doctor.history import FIRST_OVER, History
from bnlm.doctor.loss_course import LossCourse
from bnlm.doctor.weight_updates import LARGE_WARNING, allowance, is_drawn_small

#: R14: smoothed loss over its best; R14 also wants 0.15 of the reference between them, and 20 steps.
RISE_WARNING, RISE_CRITICAL, RISE_STEPS = 1.3, 3.0, 20
#: R14: share of the first losses that the smoothed one was never below, to have risen from the start.
NEVER_FELL = 0.97
#: R14: log10 of update:data in the first step that makes no loss rise by its size: of Adam and its like, and of SGD;
#: and in the typical one after that, unless the first of SGD was small: what rises for long ends in large steps.
USUAL_FIRST, USUAL_OF_SGD, USUAL_LATER, SMALL_OF_SGD = -0.7, -1.7, -1.2, -3.0
#: R14: times the loss before it that a loss of the first twenty is, where it is no wrong sign that makes them rise.
LEAPS = 3.0
#: R14 of a run that ended in nan: steps that begin and end the first twenty, times the first loss that they stay below.
SLOWLY, CREEPS = 5, 1.2
#: R14 of a loss that creeps up: for how many steps, log10 of update:data at most, t-statistic.
CREEPING_FOR, CREEPING, CREEPING_SURELY = 200, -3.0, 8.0
#: R14: how the advice begins where the loss rises from the start by steps of the usual size.
SIGN = "Look at the sign of the loss"
#: What comes before the advice for a loss whose sign is right.
ELSE = "If it is right: "
#: R14 of a loss with the wrong sign: how near it is to minus the loss function's; to minus the validation loss, which
#: is of a later time; how large that is beside the first loss.
SAME_SIZE, MIRRORED, GROWN = 0.05, 0.2, 10.0
#: R14 of a loss that nothing is known of: times the largest of the first ones that it is below zero, and how far at
#: least. Those of densities, which may be so, are of the order of the number of places that an example has.
BOTTOMLESS, BOTTOMLESS_LEAST = 100.0, 10.0
#: R14 of losses below zero: times the standard deviation of the last ones; of any, four standard errors of the running
#: mean, of what half of it may be the rise itself.
RISE_OF_NOISE, RISE_OF_SPREAD = 4.0, 0.63
#: R14 of what was trained before: share of the reference that its first loss is below, and that is lost.
TRAINED, LOST = 0.5, 0.1
#: R14: what to change where each batch holds one class; what is added where the loss never fell.
SHUFFLE = "Shuffle the training data (shuffle=True of its DataLoader): each batch holds examples of one class alone."
TOO = " It never fell:"
#: R14: how the advice begins where the loss leaps at once, and stays there; observed steps that tell of the updates
#: before; what may be the matter.
DIFFERENT = "Look at what is different"
#: The same where it was the rate that leaped.
SCHEDULE = "Look at the schedule of the learning rate"
FEW_OBSERVED = 2
CHANGED = "labels, inputs, how they are prepared, or the loss itself"
#: R08: what to change where numbers grew, and where one was nan out of the blue; times the first that is grown.
LOWER = (
    "Lower optimizer.lr, clip the gradients (trainer.gradient_clip_val=1.0), and look for a "
    "logarithm, root or division outside its domain."
)
LOOK = (
    "Nothing had grown before: look for nan and infinite values in the batches (torch.isfinite(x).all()), for a "
    "logarithm, root or division outside its domain, and for a mask that leaves nothing (softmax over -inf alone). If "
    "it is none of these, lower optimizer.lr or clip the gradients."
)
TWICE = 2.0
#: R08 where a scaler is in use: how the advice begins.
FP16 = "Use bf16 instead of fp16. "


def loss_findings(history: History) -> Iterator[Finding]:
    """Yield what the losses tell of themselves."""
    yield from _non_finite(history)
    yield from _negated(history)
    yield from _diverging(history)


def _non_finite(history: History) -> Iterator[Finding]:
    norms = [0.0 if o.gradient_norm is None else o.gradient_norm for o in history.recent]
    last = norms[-history.overflows_allowed - 1 :]
    overflows = len(last) > history.overflows_allowed and not any(map(math.isfinite, last))
    if history.losses.non_finite or overflows:
        what = "the loss" if history.losses.non_finite else "the gradient"
        yield Finding(
            "R08", "critical", "loss" if history.losses.non_finite else "gradients", history.step,
            float(history.losses.non_finite), 0, f"{what} is nan or infinite: no step after it can be trusted.",
            (FP16 if history.overflows_allowed else "") + (LOWER if _grew(history) else LOOK),
        )  # fmt: skip


def _grew(history: History) -> bool:
    """Return whether losses or gradients grew before one of them was nan, as where steps are too large."""
    before = [norm for o in history.recent if (norm := o.gradient_norm) is not None and math.isfinite(norm)]
    losses = list(history.losses.last)
    grew = len(losses) > 1 and max(losses[-10:]) > TWICE * abs(losses[0])
    return grew or (len(before) > 1 and before[-1] > TWICE * before[0]) or history.overflows_allowed > 0


def _negated(history: History) -> Iterator[Finding]:
    """Yield R14 of a loss that is minus what the loss function returns, or minus the validation loss."""
    if _is_minus_the_loss_function(history):
        than = f"what the loss function returns is {-history.reference.first_losses[0]:.3g}"
    elif _mirrors_the_validation(history):
        than = f"the validation loss is {history.validations[-1][0]:.3g}, and rises as the other falls"
    elif _falls_for_ever(history):
        than = f"it has fallen to {history.losses.recent(20):.3g}, and no cost is below zero by as much"
    else:
        return
    yield Finding(
        "R14", "critical", "loss", history.step, history.losses.recent(50), 0.0,
        f"the loss of a step has the wrong sign: it began at {history.reference.first_losses[0]:.3g}; {than}.",
        f"{SIGN}: what is minimised is minus what is to become small.",
    )  # fmt: skip


def _is_minus_the_loss_function(history: History) -> bool:
    begin, first = history.first, history.reference.first_losses[:1]
    if begin is None or begin.output is None or not begin.output.loss > 0 or not first:
        return False
    of_all = begin.output.loss + sum(other.loss for other in begin.others)
    return any(math.isclose(first[0], -loss, rel_tol=SAME_SIZE) for loss in (begin.output.loss, of_all))


def _mirrors_the_validation(history: History) -> bool:
    """Return whether a loss below zero falls as the validation loss rises."""
    first, last = history.reference.first_losses[:1], history.validations[-2:]
    if len(last) < 2 or not first or first[0] >= 0:
        return False
    if last[1][0] <= history.validations[0][0]:
        return False
    mirrored = all(MIRRORED * v < -train < v / MIRRORED for v, train in last)
    return mirrored and last[1][0] > max(RISE_WARNING * last[0][0], GROWN * abs(history.losses.first))


def _falls_for_ever(history: History) -> bool:
    """Return whether the loss is below zero by many times what it was at the start: a density's is by a few times."""
    first = history.reference.first_losses
    return bool(first) and history.losses.recent(20) < -max(BOTTOMLESS * max(map(abs, first)), BOTTOMLESS_LEAST)


def _diverging(history: History) -> Iterator[Finding]:
    losses = history.losses
    if _crept_up(history):
        first, last = losses.early[0], next(loss for loss in reversed(losses.last) if math.isfinite(loss))
        yield Finding(
            "R14", "critical", "loss", history.step, last / first, RISE_WARNING,
            f"the loss rises from the start, slowly at first: from {first:.3g} to {last:.3g}, and then to nan.",
            f"{SIGN} (a minus, maximize=True): it never fell, though the first steps were not large. {ELSE}"
            "Lower optimizer.lr, clip the gradients (trainer.gradient_clip_val=1.0).",
        )  # fmt: skip
    elif losses.steps_above >= RISE_STEPS and not _strays(losses, history.reference.is_known):
        rise = losses.worst_rise
        change = "Lower optimizer.lr, clip the gradients (trainer.gradient_clip_val=1.0), warm the learning rate up."
        if history.reference.is_sorted:
            change = SHUFFLE
        elif losses.best > NEVER_FELL * losses.first > 0:
            look = f"{SIGN} (a minus, maximize=True)"
            leaps = any(after > LEAPS * before > 0 for before, after in pairwise(losses.early))
            later = history.median("update_to_data", least=1).values()
            small = _first_step(history) < SMALL_OF_SGD and not history.facts.rescales
            leaps = leaps or (bool(later) and not small and statistics.median(later) > USUAL_LATER)
            if _steps_are_usual(history) and not history.steps_with_left_gradients and not leaps:
                change = f"{look}: it never fell, though the first steps were not large. {ELSE}{change}"
            else:
                change += f"{TOO} {look[0].lower()}{look[1:]}, too."
        elif raised := history.raised_rate(losses.steps - losses.steps_above):
            change = (
                f"{SCHEDULE}: by step {raised.step} it is {raised.lr_rise:.3g} times "
                f"what it was at the observed step before. {change}"
            )
        elif (leap := losses.lasting_leap()) and not large_updates_before(history, leap):
            change = f"{DIFFERENT} from step {leap} on: {CHANGED}. If nothing is: {change}"
        yield Finding(
            "R14", "critical" if rise > RISE_CRITICAL else "warning", "loss", history.step, rise, RISE_WARNING,
            f"the loss rises: {losses.smooth:.3g} on average where it had been {losses.best:.3g}.",
            change,
        )  # fmt: skip
    elif _creeps_up(history):
        yield Finding(
            "R14", "warning", "loss", history.step, losses.recent(50) / losses.first, 1.0,
            f"the loss rises slowly and never fell: from {losses.first:.4g} to {losses.recent(50):.4g} in "
            f"{losses.steps} steps, though these are small.",
            f"{SIGN} (a minus, maximize=True). {ELSE}look at what else moves the weights, such as weight decay.",
        )  # fmt: skip
    elif forgets(history):
        start = history.reference.first_losses[0]
        yield Finding(
            "R14", "warning", "loss", history.step, losses.recent(50) / start, RISE_WARNING,
            f"the loss began at {start:.3g}, as of a network that has been trained before, and after {losses.steps} "
            f"steps it is {losses.recent(50):.3g}: more is lost than learned.",
            "Divide optimizer.lr by 10 or more, warm it up, or freeze the first layers for a while.",
        )  # fmt: skip


def _creeps_up(history: History) -> bool:
    """Return whether the loss has risen steadily since the start, by steps that are too small to do harm."""
    losses, moved = history.losses, history.median("update_to_data").values()
    if losses.steps < CREEPING_FOR or not moved or statistics.median(moved) > CREEPING:
        return False
    above = losses.first > 0 and losses.best > NEVER_FELL * losses.first and losses.recent(50) > losses.first
    return above and losses.rises(CREEPING_SURELY)


def _strays(losses: LossCourse, is_known: bool) -> bool:
    """Return whether a smoothed loss that is above its best says little, for single ones differ as much."""
    # What was below zero may be no cost but an estimate, such as that of a policy's gradient, which ends at zero.
    if losses.best < 0 and losses.smooth - losses.best < RISE_OF_NOISE * _std(losses.tail(50)):
        return True
    # Nor does it say much where it was below zero from the start, or comes back to it, and not far beyond.
    if losses.best < 0 and not is_known and losses.smooth < max(losses.first, -losses.best):
        return True
    # Where single losses outweigh all others, it is these that the average moves with.
    lately = losses.tail(100)
    within = bool(lately) and losses.smooth - losses.best < RISE_OF_SPREAD * _std(lately)
    return within and statistics.median(lately[-RISE_STEPS:]) - losses.best < losses.least_rise


def _std(losses: list[float]) -> float:
    with np.errstate(all="ignore"):
        return float(np.std(losses))  # statistics.pstdev counts in fractions


def forgets(history: History) -> bool:
    """Return whether the loss is higher late in the run than where a network that was trained before began."""
    reference, first = history.reference, history.reference.first_losses[:1]
    if not (first and reference.is_known and history.is_late) or reference.has_other_terms:
        return False
    chance, noise = abs(reference.loss), 3 * reference.batch_error
    output = history.first.output if history.first is not None else None
    # What single batches cost may make chance look far above the first loss.
    begins_low = output is not None and output.loss < TRAINED * output.reference
    if not (0 < first[0] < TRAINED * chance and begins_low):
        return False
    return history.losses.recent(50) - first[0] > max((RISE_WARNING - 1) * first[0], LOST * chance, noise)


def _crept_up(history: History) -> bool:
    """Return whether a loss that ended in nan rose from the start, by steps of the usual size and slowly at first.

    Of a rate that is too high it falls along most directions, or leaps at once.
    """
    early, last = history.losses.early, history.losses.last
    if not (history.losses.non_finite and len(early) >= 2 * SLOWLY and early[0] > 0 and _steps_are_usual(history)):
        return False
    start, end = early[:SLOWLY], early[-SLOWLY:]
    never_fell = min(history.losses.best, *early) > NEVER_FELL * early[0]
    creeps = max(start) < CREEPS * early[0] and statistics.fmean(end) > statistics.fmean(start)
    return never_fell and creeps and max(last) > TWICE * early[0] and not history.steps_with_left_gradients


def _steps_are_usual(history: History) -> bool:
    """Return whether the first step moved the typical weight no further than it does where training goes well."""
    return _first_step(history) < (USUAL_FIRST if history.facts.rescales else USUAL_OF_SGD)


def large_updates_before(history: History, step: int) -> bool:
    """Return whether the typical hidden weight moved too far already in the observed steps before this one."""
    facts = [f for f in history.facts.parameters.values() if f.role == "hidden" and not is_drawn_small(f)]
    before = [o.of("update_to_data") for o in history.recent if FIRST_OVER <= o.step < step]
    moved = {one.name: [of[one.name] - allowance(one) for of in before if one.name in of] for one in facts}
    typical = [statistics.median(updates) for updates in moved.values() if len(updates) >= FEW_OBSERVED]
    return bool(typical) and statistics.median(typical) > LARGE_WARNING


def _first_step(history: History) -> float:
    """Return log10 of update:data of the typical weight in the first step; infinity where that was not observed."""
    first = history.first.of("update_to_data") if history.first is not None and history.first.step == 0 else {}
    facts = history.facts.parameters
    moved = [u for name, u in first.items() if name in facts and facts[name].role != "vector" and facts[name].std > 0]
    return statistics.median(moved) if moved else math.inf
