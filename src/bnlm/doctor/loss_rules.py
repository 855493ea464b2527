"""Rules over the losses of all steps: R08, R13, R14."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator

from bnlm.doctor.finding import Finding
from bnlm.doctor.history import History
from bnlm.doctor.observation import Output
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
#: R13: observed steps in which all outputs are probabilities, to be so by design.
CERTAIN = 3
#: R13: steps to wait, and no longer than this share of the run. Small recurrent networks stay at chance for 200 steps.
PATIENCE, PATIENCE_SHARE = 400, 0.9
#: R13 of regressions whose loss falls: times that of the best constant, late in the run.
STILL_ABOVE = 3.0
#: R14: smoothed loss over its best; R14 also wants 0.15 of the reference between them, and 20 steps.
RISE_WARNING, RISE_CRITICAL, RISE_STEPS = 1.3, 3.0, 20
#: R14: share of the first losses that the smoothed one was never below, to have risen from the start.
NEVER_FELL = 0.97
#: R14: log10 of update:data in the first step, of which AdamW's is the largest, that makes no loss rise by its size.
USUAL_FIRST = -0.7
#: R14: how the advice begins where the loss rises from the start by steps of the usual size.
SIGN = "Look at the sign of the loss"
#: R14 of losses below zero: times the standard deviation of the last ones.
RISE_OF_NOISE = 4.0
#: R13 of what is worse than a constant: what to change.
SCALE_TARGETS = (
    "Bring the targets to mean 0 and variance 1: the outputs are far from them, and take long to come nearer."
)
#: R13 of dropout: share of the reference that is left late in the run; what to change.
LEFT_BY_DROPOUT = 0.3
LESS_DROPOUT = "Lower the p of the dropout to 0.5 or less: 0.1 to 0.3 is usual."
#: R13: how the advice begins where the cause is certain.
ZEROS, SHAPES, REMOVE = "Look at the inputs", "Give outputs and targets the same shape", "Remove the"
CERTAIN_CAUSES = (ZEROS, SHAPES, REMOVE)
#: R13 of outputs that come out of an activation: share of the reference that is out of their reach.
UNREACHED_WARNING, UNREACHED_CRITICAL = 0.05, 0.25


def loss_findings(history: History) -> Iterator[Finding]:
    """Yield what the losses tell."""
    yield from _non_finite(history)
    yield from _diverging(history)
    yield from _of_probabilities(history)
    yield from _out_of_reach(history)
    yield from _cut_logits(history)
    yield from _not_decreasing(history)
    yield from _far_from_targets(history)
    yield from _heavy_dropout(history)


def _non_finite(history: History) -> Iterator[Finding]:
    norms = [0.0 if o.gradient_norm is None else o.gradient_norm for o in history.recent]
    last = norms[-history.overflows_allowed - 1 :]
    overflows = len(last) > history.overflows_allowed and not any(map(math.isfinite, last))
    if history.non_finite_losses or overflows:
        what = "the loss" if history.non_finite_losses else "the gradient"
        yield Finding(
            "R08", "critical", "loss" if history.non_finite_losses else "gradients", history.step,
            float(history.non_finite_losses), 0, f"{what} is nan or infinite: no step after it can be trusted.",
            "Lower optimizer.lr, clip the gradients (trainer.gradient_clip_val=1.0), use bf16 instead of fp16, and "
            "look for a logarithm, root or division outside its domain.",
        )  # fmt: skip


def _diverging(history: History) -> Iterator[Finding]:
    last = history.last_losses(50)
    # What was below zero may be no cost but an estimate, such as that of a policy's gradient, which ends at zero.
    strays = history.best < 0 and history.smooth - history.best < RISE_OF_NOISE * statistics.pstdev(last or [0.0])
    if history.steps_above >= RISE_STEPS and not strays:
        rise = history.worst_rise
        change = "Lower optimizer.lr, clip the gradients (trainer.gradient_clip_val=1.0), warm the learning rate up."
        if history.best > NEVER_FELL * history.first_loss > 0:
            look = f"{SIGN} (a minus, maximize=True)"
            if _steps_are_usual(history):
                change = f"{look}: it never fell, though the first steps were not large. If it is right: {change}"
            else:
                change += f" It never fell: {look[0].lower()}{look[1:]}, too."
        yield Finding(
            "R14", "critical" if rise > RISE_CRITICAL else "warning", "loss", history.step, rise, RISE_WARNING,
            f"the loss rises: {history.smooth:.3g} on average where it had been {history.best:.3g}.",
            change,
        )  # fmt: skip


def _steps_are_usual(history: History) -> bool:
    """Return whether the first step moved the typical weight no further than it does where training goes well."""
    first = history.first.of("update_to_data") if history.first is not None and history.first.step == 0 else {}
    facts = history.facts.parameters
    moved = [u for name, u in first.items() if name in facts and facts[name].role != "vector" and facts[name].std > 0]
    return bool(moved) and statistics.median(moved) < USUAL_FIRST


def _of_probabilities(history: History) -> Iterator[Finding]:
    outputs = [o.output for o in history.recent if o.output is not None and not o.output.activation]
    if history.first is None or len(outputs) < CERTAIN or any(math.isnan(output.floor) for output in outputs):
        return
    if all(output.floor == -math.inf for output in outputs):
        yield Finding(
            "R13", "critical", "loss", history.first.step, history.recent_loss(100), -math.inf,
            "the loss can fall for ever without anything being learned: what comes to nll_loss is no log-probabilities "
            "(their exponentials do not sum to 1).",
            "Give it the output of log_softmax, or use cross_entropy, which takes logits.",
        )  # fmt: skip
        return
    what = (
        "what comes to cross_entropy sums to 1 in each example, so it is probabilities already, and it makes a softmax "
        "of them once more."
    )
    change = "Give it logits: remove the softmax before the loss (nll_loss wants log_softmax)."
    if outputs[0].kind != "cross_entropy":
        # A fresh output may lie between 0 and 1 for a while; a sigmoid's has to.
        if next(reversed(history.first.kinds.values()), None) != "sigmoid":
            return
        what = (
            "what comes to binary_cross_entropy_with_logits is between 0 and 1, for it has passed a sigmoid already, "
            "and it takes the sigmoid of that once more."
        )
        change = "Give it logits: remove the sigmoid before the loss (binary_cross_entropy wants probabilities)."
    yield Finding(
        "R13", "critical", "loss", history.first.step, history.recent_loss(100), outputs[0].floor,
        f"the loss cannot fall below {outputs[0].floor:.3g}: {what}",
        change,
    )  # fmt: skip


def _out_of_reach(history: History) -> Iterator[Finding]:
    """Yield R13 where the last activation cannot reach what is wanted of it."""
    output = history.recent[-1].output
    if output is None or not output.out_of_reach > UNREACHED_WARNING:
        return
    what = {
        "regression": "the targets are in part beyond its values",
        "cross_entropy": "its values bound how sure of a class softmax can be",
        "binary_cross_entropy": "its values bound how sure the sigmoid within the loss can be",
    }[output.kind]
    severity = "critical" if output.out_of_reach > UNREACHED_CRITICAL else "warning"
    yield Finding(
        "R13", severity, "output", history.step, output.loss, output.floor,
        f"the loss cannot fall below {output.floor:.3g}: the outputs come straight out of {output.activation}, and "
        f"{what}.",
        _within_reach(output),
    )  # fmt: skip


def _cut_logits(history: History) -> Iterator[Finding]:
    """Yield R13 of logits that a ReLU makes zero where they are below it: these have no gradient any more."""
    output = history.recent[-1].output
    if output is not None and output.activation == "relu" and output.kind == "cross_entropy":
        yield Finding(
            "R13", "warning", "output", history.step, output.loss, output.floor,
            "the logits come straight out of a ReLU: where it makes one zero no gradient comes back, and a class that "
            "has lost all its examples to that is never learned.",
            _within_reach(output),
        )  # fmt: skip


def _heavy_dropout(history: History) -> Iterator[Finding]:
    """Yield R13 where hardly any unit is left in a step, and little has been learned late in the run."""
    dropouts = history.facts.heavy_dropouts
    if not dropouts or not history.is_late or not history.references:
        return
    left = history.recent_loss(100) / abs(history.reference)
    if left > LEFT_BY_DROPOUT:
        worst = max(dropouts, key=lambda path: dropouts[path])
        yield Finding(
            "R13", "warning", worst, history.step, history.recent_loss(100), LEFT_BY_DROPOUT * abs(history.reference),
            f"{worst} leaves {1 - dropouts[worst]:.0%} of its inputs in a step (p={dropouts[worst]:g}); after "
            f"{history.steps_with_loss} steps the loss is {left:.0%} of what knowing nothing costs.",
            LESS_DROPOUT,
        )  # fmt: skip


def _within_reach(output: Output) -> str:
    instead = ", or bring the targets to its range." if output.kind == "regression" else ": it takes logits."
    return f"{REMOVE} {output.activation} before the loss{instead}"


def _not_decreasing(history: History) -> Iterator[Finding]:
    enough = min(PATIENCE, max(100, PATIENCE_SHARE * history.total_steps))
    if history.steps_with_loss < enough or history.warms_up or history.non_finite_losses:
        return
    learns_nothing = _validates_at_chance(history)
    if history.falls(100) and not learns_nothing:
        return
    recent, chance = history.recent_loss(100), history.reference
    if not chance > 0 or history.first_loss < 0.7 * chance:
        return
    output = history.first.output if history.first is not None else None
    knowing = "knowing nothing gives"
    if output is not None and output.kind == "regression":
        at_chance, chance = _at_a_constant(history, recent)
        knowing = "the best constant has"
        limit = STUCK_REGRESSION * chance
    else:  # of classes chance is chance, however much worse the start was
        frequencies = history.loss_of_frequencies
        if frequencies < chance:
            chance, knowing = frequencies, "knowing how frequent each class is, and nothing else, gives"
        limit = (STUCK_BOTH if learns_nothing else STUCK) * chance
        at_chance = recent >= limit
    if not at_chance and recent < STUCK * history.first_loss:
        return
    rose = recent > FAR_ABOVE * history.first_loss
    suggestion = (
        "Mend what made the loss rise first."
        if rose
        else (
            "Try to overfit a single batch: if that fails look at labels, frozen layers and optimizer.lr; if it works, "
            "at the data."
        )
    )
    if output is not None and output.kind == "regression" and recent > FAR_ABOVE * chance and not rose:
        suggestion = SCALE_TARGETS
    if decay := heavy_decay(history):
        suggestion = f"{LOWER_DECAY} ({decay:g}) by 10 or more: it takes the weights away. {suggestion}"
    if history.facts.heavy_dropouts:
        suggestion = LESS_DROPOUT
    first = next((n for n, p in history.facts.parameters.items() if n.endswith(".weight") and p.role != "vector"), "")
    if first in history.fed_with_zeros():
        suggestion = f"{ZEROS}: nothing but zeros comes to {first}."
    if output is not None and output.out_of_reach > UNREACHED_WARNING:
        suggestion = _within_reach(output)
    if output is not None and output.broadcast:
        suggestion = (
            f"{SHAPES}: now each output is held against the targets of other examples "
            "too, as torch broadcasts (N, 1) beside (N,) to (N, N)."
        )
    yield Finding(
        "R13", "warning" if output is None else "critical", "loss", history.step, recent, limit,
        f"after {history.steps_with_loss} steps the loss is {recent:.3g}; {knowing} {chance:.3g}"
        f"{', hardly more' * (HARDLY * chance < recent < chance)}.",
        suggestion,
    )  # fmt: skip


def _validates_at_chance(history: History) -> bool:
    """Return whether late in the run the last validations are no better than knowing nothing."""
    last = [loss for loss, _ in history.validations[-3:]]
    return history.is_late and len(last) == 3 and min(last) > STUCK * history.loss_of_a_constant


def _far_from_targets(history: History) -> Iterator[Finding]:
    """Yield R13 of a regression that learns, and knows not even the mean of its targets after a long time."""
    if not history.is_late or history.warms_up or history.recent_loss(100) > history.first_loss:
        return
    last = [o.output for o in history.recent if o.output is not None and o.output.kind == "regression"][-SAME_BATCHES:]
    if len(last) == SAME_BATCHES and all(output.loss > STILL_ABOVE * output.constant for output in last):
        loss, constant = statistics.fmean(o.loss for o in last), statistics.fmean(o.constant for o in last)
        yield Finding(
            "R13", "warning", "loss", history.step, loss * history.loss_weight, constant * history.loss_weight,
            f"after {history.steps_with_loss} steps the loss is {loss:.3g}; the best constant has {constant:.3g}.",
            SCALE_TARGETS,
        )  # fmt: skip


def _at_a_constant(history: History, recent: float) -> tuple[bool, float]:
    """Return whether the loss is that of the best constant on the very same batches, and how much that is.

    It is another in each batch, by more than what is asked here.
    """
    outputs = [o.output for o in history.recent if o.output is not None and o.output.kind == "regression"]
    if not outputs:
        return False, history.reference
    chance = statistics.fmean(o.constant for o in outputs) * history.loss_weight
    last = outputs[-SAME_BATCHES:]
    loss, constant = statistics.fmean(o.loss for o in last), statistics.fmean(o.constant for o in last)
    near = STUCK_REGRESSION * constant <= loss <= FAR_ABOVE * constant
    worse = loss > constant and recent >= FLAT * history.first_loss
    return (near or worse) and recent >= FALLEN * chance, chance
