"""R13 of losses that stand still, or are high late in the run."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator

from bnlm.doctor.dropout_rules import LESS_DROPOUT, heavy_dropouts
from bnlm.doctor.finding import Finding
from bnlm.doctor.history import History
from bnlm.doctor.loss_rules import SHUFFLE
from bnlm.doctor.unreachable_rules import REMOVE, SAME_SHAPE, SEVERAL_OUTPUTS, SHAPES, UNREACHED_WARNING, within_reach
from bnlm.doctor.weight_decay import LOWER_DECAY, heavy_decay

#: R13: recent loss over the reference. Language models are flat at 0.56 to 0.72 of it in some window, healthily.
STUCK = 0.98
#: R13: the same share where the validation loss is that of chance too, and what the loss has fallen is known by heart.
STUCK_BOTH = 0.95
#: R13 of regressions: over the loss of the best constant on the same batches, of which the last so many are taken.
STUCK_REGRESSION, SAME_BATCHES = 0.95, 5
#: R13: share of what knowing nothing costs that is hardly less.
HARDLY = 0.9
#: R13 of regressions: below this share of that over more batches, the loss has fallen since.
FALLEN = 0.85
#: R13 of regressions: what is worse than a constant by more than this is another matter, unless it was all along.
FAR_ABOVE, FLAT = 1.3, 0.9
#: R13: steps to wait, and no longer than this share of the run. Small recurrent networks stay at chance for 200 steps.
PATIENCE, PATIENCE_SHARE = 400, 0.9
#: R13 of regressions whose loss falls: times that of the best constant, late in the run.
STILL_ABOVE = 3.0
#: R13 of regressions: loss of a constant that large targets have, share of it that is left late in the run.
LARGE_TARGETS, HARDLY_LEARNED = 25.0, 0.5
#: R13 of what is worse than a constant: what to change.
SCALE_TARGETS = (
    "Bring the targets to mean 0 and variance 1: the outputs are far from them, and take long to come nearer."
)
#: The same where the targets are about of mean 0 and variance 1 already: loss of the best constant, and that of zero
#: over it.
USUAL_TARGETS, CENTRED = (0.1, 4.0), 2.0
SCALE_OUTPUTS = (
    "Make the first outputs small, by smaller weights in the output layer (init.output_scale=0.1) and the gain of the "
    "activation before it: they are far from the targets, and take long to come nearer."
)
#: R13: std of inputs that a network can hardly tell apart.
SMALL_INPUTS = 0.02
#: R13: how the advice begins where the cause is not known; and where it is certain.
OVERFIT = "Try to overfit a single batch"
ZEROS = "Look at the inputs"
CERTAIN_CAUSES = (ZEROS, SHAPES, REMOVE, SEVERAL_OUTPUTS, LESS_DROPOUT)


def standstill_findings(history: History) -> Iterator[Finding]:
    """Yield what lasts."""
    yield from _not_decreasing(history)
    yield from _far_from_targets(history)
    yield from _nothing_comes_in(history)


def _not_decreasing(history: History) -> Iterator[Finding]:
    enough = min(PATIENCE, max(100, PATIENCE_SHARE * history.total_steps))
    if history.losses.steps < enough or history.warms_up or history.losses.non_finite:
        return
    learns_nothing = _validates_at_chance(history)
    if history.losses.falls(100) and not learns_nothing:
        return
    recent, chance = history.losses.recent(100), history.reference.loss
    if not chance > 0 or history.losses.first < 0.7 * chance:
        return
    output = history.first.output if history.first is not None else None
    knowing = "knowing nothing gives" if history.reference.is_known else "it began at"
    what, shown = "the loss", recent
    if output is not None and output.kind == "regression" and history.reference.is_known:
        if _beats_a_constant(history):
            return
        at_chance, chance = _at_a_constant(history, recent)
        knowing = "the best constant has"
        limit = STUCK_REGRESSION * chance
    else:  # of classes chance is chance, however much worse the start was
        frequencies = history.reference.of_frequencies
        if frequencies < chance:
            chance, knowing = frequencies, "knowing how frequent each class is, and nothing else, gives"
        limit = (STUCK_BOTH if learns_nothing else STUCK) * chance
        if history.reference.has_other_terms:
            what, shown = "what comes of the loss function", _of_loss_function(history)
        at_chance = shown >= limit
    if not at_chance and recent < STUCK * history.losses.first:
        return
    rose = recent > FAR_ABOVE * history.losses.first
    suggestion = (
        "Mend what made the loss rise first."
        if rose
        else (f"{OVERFIT}: if that fails look at labels, frozen layers and optimizer.lr; if it works, at the data.")
    )
    if history.reference.is_sorted:
        suggestion = SHUFFLE
    if output is not None and output.kind == "regression" and recent > FAR_ABOVE * chance and not rose:
        suggestion = SCALE_TARGETS if _targets_are_off(history) else SCALE_OUTPUTS
    if decay := heavy_decay(history):
        suggestion = f"{LOWER_DECAY} ({decay:g}) by 10 or more: it takes the weights away. {suggestion}"
    if heavy_dropouts(history):
        suggestion = LESS_DROPOUT
    if (std := _small_inputs(history)) > 0:
        suggestion = (
            f"{ZEROS}: those of the first batch have std {std:.2g}, and biases say more than they; bring them to mean "
            "0 and variance 1."
        )
    if first := _fed_with_zeros(history):
        suggestion = f"{ZEROS}: nothing but zeros comes to {first}."
    if output is not None and output.out_of_reach > UNREACHED_WARNING:
        suggestion = within_reach(output)
    if output is not None and output.broadcast:
        suggestion = SAME_SHAPE
    yield Finding(
        "R13", "warning" if output is None else "critical", "loss", history.step, shown, limit,
        f"after {history.losses.steps} steps {what} is {shown:.3g}; {knowing} {chance:.3g}"
        f"{', which is hardly worse' * (HARDLY * chance < shown < chance)}.",
        suggestion,
    )  # fmt: skip


def _targets_are_off(history: History) -> bool:
    """Return whether the targets of a regression are far from mean 0 and variance 1."""
    low, high = USUAL_TARGETS
    constant = history.reference.of_a_constant / history.reference.weight
    return not low < constant < high or history.reference.zero_over_constant > CENTRED


def _small_inputs(history: History) -> float:
    """Return the std of the first batch's inputs where that is next to nothing, and nothing scales it; else 0."""
    std = history.first.heard.input_std if history.first is not None else math.nan
    first = next((p for p in history.facts.parameters.values() if p.role == "hidden"), None)
    return std if std < SMALL_INPUTS and first is not None and not first.feeds_norm else 0.0


def _fed_with_zeros(history: History) -> str:
    """Return the first weight of the network if nothing but zeros comes to it; else nothing."""
    weights = [n for n, p in history.facts.parameters.items() if ".weight" in n and p.role != "vector"]
    first = next(iter(weights), "")
    # Seen, also where units that are dead of it pass no gradient.
    if history.blank and first.startswith(f"{history.blank}.weight"):
        return first if history.recent[-1].of("gradient_std").get(first) == 0 else ""
    return first if first in history.fed_with_zeros() and not history.facts.frozen else ""


def _nothing_comes_in(history: History) -> Iterator[Finding]:
    """Yield R13 of a network to whose first weight nothing but zeros has come in all observed steps."""
    first = _fed_with_zeros(history)
    if first and history.warm and all(o.of("gradient_std").get(first) == 0 for o in history.recent):
        yield Finding(
            "R13", "critical", first, history.step, history.losses.recent(100), 0.0,
            f"nothing but zeros comes to {first}, so that whatever is learned is learned by biases.",
            f"{ZEROS}: nothing but zeros comes to {first}.",
        )  # fmt: skip


def _far_from_targets(history: History) -> Iterator[Finding]:
    """Yield R13 of a regression whose loss falls, and knows little more than the mean of its targets after a long time.

    Large targets are far from a network's first outputs, and each step brings those only a little nearer.
    """
    if not history.is_late or history.warms_up or history.losses.recent(100) > history.losses.first:
        return
    last = [o.output for o in history.recent if o.output is not None and o.output.kind == "regression"][-SAME_BATCHES:]
    if len(last) < SAME_BATCHES:
        return
    loss, constant = statistics.fmean(o.loss for o in last), statistics.fmean(o.constant for o in last)
    large = all(o.constant > LARGE_TARGETS for o in last) and loss > HARDLY_LEARNED * constant
    if large or all(o.loss > STILL_ABOVE * o.constant for o in last):
        weight = history.reference.weight
        yield Finding(
            "R13", "warning", "loss", history.step, loss * weight, constant * weight,
            f"after {history.losses.steps} steps the loss is {loss:.3g}; the best constant has {constant:.3g}.",
            SCALE_TARGETS,
        )  # fmt: skip


def _of_loss_function(history: History) -> float:
    """Return the mean of what the loss function returned for the last observed batches; nan without any."""
    last = [history.reference.weight * o.output.loss for o in history.recent if o.output is not None][-SAME_BATCHES:]
    return statistics.fmean(last) if last else math.nan


def _validates_at_chance(history: History) -> bool:
    """Return whether late in the run the last validations are no better than knowing nothing."""
    last = [loss for loss, _ in history.validations[-3:]]
    alone = history.is_late and not history.reference.has_other_terms
    return alone and len(last) == 3 and min(last) > STUCK * history.reference.of_a_constant


def _at_a_constant(history: History, recent: float) -> tuple[bool, float]:
    """Return whether the loss is that of the best constant on the very same batches, and how much that is.

    It is another in each batch, by more than what is asked here.
    """
    outputs = [o.output for o in history.recent if o.output is not None and o.output.kind == "regression"]
    if not outputs:
        return False, history.reference.loss
    chance = statistics.fmean(o.constant for o in outputs) * history.reference.weight
    last = outputs[-SAME_BATCHES:]
    loss, constant = statistics.fmean(o.loss for o in last), statistics.fmean(o.constant for o in last)
    near = STUCK_REGRESSION * constant <= loss <= FAR_ABOVE * constant
    worse = loss > constant and recent >= FLAT * history.losses.first
    return (near or worse) and recent >= FALLEN * chance, chance


def _beats_a_constant(history: History) -> bool:
    """Return whether most of the last batches have less than the best constant has on them.

    Their mean does not tell where single examples are so far from all others that they outweigh a batch.
    """
    last = [o.output for o in history.recent if o.output is not None and o.output.kind == "regression"]
    last = last[-2 * SAME_BATCHES :]
    return 2 * sum(o.loss < STUCK_REGRESSION * o.constant for o in last) >= len(last) > 0
