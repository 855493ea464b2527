"""R07: steps that stand out, and whether it is their batches that do."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from bnlm.doctor.finding import Finding
from bnlm.doctor.history import History
from bnlm.doctor.loss_course import BATCH_NOISE, LASTS
from bnlm.doctor.loss_rules import large_updates_before
from bnlm.doctor.small_update_rules import CLIP_LESS
from bnlm.doctor.weight_updates import hidden_updates

#: R07 of single batches: mean over median of the last losses; how the advice begins.
DOMINATED, BATCHES = 2.5, "Look at the batches"
#: Share of the losses that stand out at most, where it is their batches: steps that are too large make many do.
RARE = 0.08
#: R07 of single batches: times the losses on both sides of it that a loss is, less where it comes back, and share of
#: the reference.
STANDS_OUT, COMES_BACK, LEAST = 5.0, 2.5, 0.15
#: R07 of batches of another kind: times the usual distance from the losses around, and share of the reference, that a
#: loss is off; share of all that are; how many are looked at, in blocks that each have a usual distance of their own.
FAR_OFF, LEAST_OFF, MANY_OFF, BLOCK, BLOCKS = 6.0, 0.1, 0.04, 50, 10
#: R07: losses whose logarithms tell by what factors they differ, and standard deviations of those that are usual.
SPREAD_OVER, FAR_BY_FACTORS = 200, 5.0
#: R07 of clipping: observed steps, share of them.
SEVERAL, OFTEN_CLIPPED = 10, 0.9
#: The same: the norm below which nobody clips who means single steps.
LEAST_CLIP = 0.1
#: The same of an optimizer whose steps are as large as what is left: share of the norm, log10 of update:data, share of
#: the first losses that is left late in the run.
CLIPPED_AWAY, SLOW, LEFT_BY_CLIPPING = 0.25, -2.8, 0.5
#: R07 of batches that are no rarity: single losses that stand out, half of all that do or more.
OFTEN = 8
#: R07 of batches after which the loss stays up: losses before the first that are calm, and how many times as high it
#: is where the next one is high, too. The first step that is too large was up to 11 times as high in the zoo.
CALM, OUT_OF_CALM = 10, 30.0
#: R07 of batches that come back: steps between two at least, share of the distances that are multiples of the
#: shortest, and how many times rarer than once they would all be that by chance.
SHORTEST, ARE_MULTIPLES, BY_CHANCE = 5, 0.75, 1000


def spike_findings(history: History) -> Iterator[Finding]:
    """Yield R07; nothing before the first steps are over."""
    if history.warm:
        yield from _spikes(history)
        yield from of_other_kinds(history)
        yield from _always_clipped(history)


def _spikes(history: History) -> Iterator[Finding]:
    recent = [step for step in history.losses.spikes if step > history.losses.steps - 500]
    if _are_usual(history, recent):
        recent = []
    norms = [norm for o in history.recent if (norm := o.gradient_norm) is not None]
    # A gradient that vanishes with the loss makes every other one look large.
    start = statistics.median(history.early_norms) if history.early_norms else 0.0
    high = [
        index
        for index in range(3, len(norms))
        if norms[index] > 3 * start and norms[index] > max(10 * _around(norms, index), 3 * start) > 0
    ]
    out, period = _returning(history)
    if len(recent) < 3 and len(high) < 3 and not period:
        return
    count = out if period else max(len(recent), len(high))
    # Norms alone rise for a while wherever a network leaves a plateau.
    severity = "note" if len(recent) < 3 and not period and history.losses.improves() else "warning"
    change = (
        "Clip the gradients (trainer.gradient_clip_val=1.0), warm the learning rate up, and look at the batches of "
        "these steps."
    )
    how = _of_batches(history, recent, out, period)
    if how:
        change = (
            f"{BATCHES} of these steps, for inputs or targets that are out of scale; until they are mended, clip the "
            "gradients (trainer.gradient_clip_val=1.0)."
        )
    above = f"a loss over {COMES_BACK if period else 3:g} times, or a gradient norm over 10 times"
    yield Finding(
        "R07", severity, "loss" if len(recent) >= 3 or period else "gradients", history.step, count, 3,
        f"{count} steps stand out: {above}, that of the steps around them.{how}",
        change,
    )  # fmt: skip


def _are_usual(history: History, spikes: list[int]) -> bool:
    """Return whether single losses differ by such factors all the time, as where the targets have heavy tails."""
    losses = np.array(history.losses.tail(SPREAD_OVER))
    if not spikes or not losses.min() > 0:
        return False
    if len(losses) < SPREAD_OVER // 4 and not history.losses.non_finite:
        return True  # which few of them do not tell
    logs = np.log(losses)
    # From one to the next, for the loss falls meanwhile; of a normal distribution the median is 0.67 of the std.
    spread = 1.48 * float(np.median(np.abs(np.diff(logs)))) / math.sqrt(2)
    at = [step - 1 - (history.losses.steps - len(losses)) for step in spikes]
    heights = [logs[i] - np.median(logs[max(0, i - 10) : i]) for i in at if i > 0]
    return bool(heights) and statistics.median(heights) < FAR_BY_FACTORS * spread


def of_other_kinds(history: History) -> Iterator[Finding]:
    """Yield R07, a note, where many single losses are far from those around them, be it above or below."""
    if not history.is_late or not history.reference.is_known:
        return
    losses = np.array(list(history.losses.last)[-BLOCK * BLOCKS :])
    losses = losses[len(losses) % BLOCK :]
    least = LEAST_OFF * history.losses.scale
    if len(losses) < 2 * BLOCK or np.ptp(losses) <= least:  # then none can be so far off
        return
    around = np.median(np.lib.stride_tricks.sliding_window_view(np.pad(losses, 4, mode="edge"), 9), axis=1)
    off = np.abs(losses - around).reshape(-1, BLOCK)
    # Of a normal distribution the median of these is 0.67 standard deviations.
    noise = 1.48 * np.median(off, axis=1, keepdims=True)
    far = off > np.maximum(FAR_OFF * noise, least)
    if far.mean() > MANY_OFF:
        yield Finding(
            "R07", "note", "loss", history.step, float(far.mean()), MANY_OFF,
            f"{far.mean():.0%} of the last {len(losses)} losses are far above or below those around them, by over "
            f"{FAR_OFF:.0f} times what is usual.",
            "Look whether some batches are of another kind, or inputs of another scale; mix them in each batch.",
        )  # fmt: skip


def _always_clipped(history: History) -> Iterator[Finding]:
    """Yield R07 where it is no spikes that are clipped, but every step."""
    norms = [norm for o in history.recent if (norm := o.gradient_norm) is not None]
    clipped = [norm for norm in norms if norm > history.clip > 0]
    if len(norms) >= SEVERAL and len(clipped) > OFTEN_CLIPPED * len(norms):
        typical = history.clip / statistics.median(norms)
        # Adam's steps are of the same size whatever is left of a gradient.
        moved = hidden_updates(history).values()
        slows = not history.facts.rescales and typical < CLIPPED_AWAY and bool(moved)
        slows = slows and statistics.median(moved) < SLOW and history.is_late
        slows = slows and history.losses.recent(50) > LEFT_BY_CLIPPING * history.losses.first > 0
        severity, change = "warning", f"{CLIP_LESS}={history.clip:g}"
        if slows:
            change += " by 10, or optimizer.lr: steps are small, and most of the loss is left."
        elif history.clip < LEAST_CLIP:
            change += " to 1.0, so that what stands out is clipped alone."
        else:
            severity, change = "note", f"Nothing, if that is meant; otherwise r{change[1:]}."
        yield Finding(
            "R07", severity, "gradients", history.step, len(clipped) / len(norms), OFTEN_CLIPPED,
            f"the gradient is clipped in {len(clipped)} of the last {len(norms)} observed steps, typically to "
            f"{typical:.2g} of its norm: its direction alone is left, and the learning rate says how far steps go.",
            change,
        )  # fmt: skip


def _of_batches(history: History, recent: list[int], out: int, period: int) -> str:
    """Return what tells that it is batches that stand out, rather than steps that went too far; else nothing."""
    if period:
        return (
            f" They come every {period} steps, or at multiples of that, between losses that are lower by "
            f"{COMES_BACK:g} times or more: steps that are too large know no such order."
        )
    last = history.losses.tail(100)
    if not last:
        return ""
    usual, mean = statistics.median(last), statistics.fmean(last)
    # What grows has such a mean too, and so has what leaped and stayed there.
    stays = usual - history.losses.best > max(history.losses.best, LEAST * history.losses.scale)
    alone = out >= OFTEN and 2 * out >= len(recent)
    if (stays or alone) and (began := _began_at_once(history)):
        return (
            f" It began at once, with step {began}, after {CALM} losses that were calm: steps that are too large take "
            "several to get there."
        )
    if not _isolated(recent, history.losses.steps) or out > RARE * len(history.losses.last):
        return ""
    returns = statistics.median(last[-10:]) < DOMINATED * usual and not stays
    if not (returns and mean > DOMINATED * usual > 0):
        return ""
    return f" They are single ones: of the last {len(last)} losses the median is {usual:.3g}, the mean {mean:.3g}."


def _isolated(spikes: list[int], steps: int) -> bool:
    """Return whether spikes stand by themselves at several places, rather than in a row as after a step too far.

    And whether they go on, rather than being of the start.
    """
    places = 1 + sum(after - before > 2 for before, after in pairwise(spikes))
    late = sum(spike > steps / 2 for spike in spikes)
    return len(spikes) >= 3 and steps >= 100 and places >= 3 and len(spikes) <= 2 * places and 3 * late >= len(spikes)


def _began_at_once(history: History) -> int:
    """Return the step of the run's first spike if it came out of calm and went at once, or was very high; else 0."""
    course = history.losses
    gone = course.steps - len(course.last)  # losses that are no longer kept
    at = course.spikes[0] - 1 - gone if course.spikes and not course.non_finite else 0
    if len(course.spikes) == course.spikes.maxlen or not CALM <= at < len(course.last) - 1:
        return 0
    *calm, spike, after = list(course.last)[at - CALM : at + 2]
    before = max(*calm, 0.0)
    alone = spike > STANDS_OUT * max(before, after)
    may_last = len(course.last) - at <= LASTS // 2  # which is to be seen, before batches are blamed
    if not (alone or (spike > OUT_OF_CALM * before and not may_last)) or spike - before <= LEAST * course.scale:
        return 0
    other = history.raised_rate(course.spikes[0]) is not None or course.first_spike_lasts()
    other = other or large_updates_before(history, course.spikes[0])
    return 0 if other else course.spikes[0]


def _around(norms: list[float], index: int) -> float:
    """Return what is usual near one of the norms: the larger of the medians of the five before and after it."""
    return max(
        statistics.median(part) for part in (norms[max(0, index - 5) : index], norms[index + 1 : index + 6]) if part
    )


def _returning(history: History) -> tuple[int, int]:
    """Return how many single losses stand out, and after how many steps they come back; 0 where they do not.

    As a batch does in epochs that are not shuffled, or every so-manieth shard of a stream.
    """
    if not history.reference.is_known:
        return 0, 0
    losses = np.array(list(history.losses.last))
    # In batches of few, single examples stand out.
    least = np.maximum(LEAST * history.losses.scale, BATCH_NOISE * history.reference.batch_error)
    if not losses.size or not losses.max() > max(COMES_BACK * losses.min(), least):  # as most of the time
        return 0, 0
    beside = np.maximum(np.maximum(losses[:-2], losses[2:]), 0.0)
    out = np.flatnonzero(losses[1:-1] > np.maximum(STANDS_OUT * beside, least)).tolist()
    lower = np.flatnonzero(losses[1:-1] > np.maximum(COMES_BACK * beside, least)).tolist()
    return (len(lower), period) if (period := _period(lower)) else (len(out), _period(out))


def _period(steps: Sequence[int]) -> int:
    """Return the distance of which those between steps are multiples, where that is no chance; else 0."""
    distances = [after - before for before, after in pairwise(steps)]
    for period in sorted({distance for distance in distances if distance >= SHORTEST}):
        multiples = sum(distance % period == 0 for distance in distances)
        # The first of them is one of its own.
        if multiples >= ARE_MULTIPLES * len(distances) and period ** (multiples - 1) >= BY_CHANCE:
            return period
    return 0
