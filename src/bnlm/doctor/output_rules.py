"""Rules over the loss before anything is learned: R01, R02."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import replace

from bnlm.doctor.dropout_rules import LESS_DROPOUT, heavy_dropouts
from bnlm.doctor.finding import Finding, in_words
from bnlm.doctor.history import History
from bnlm.doctor.large_starts import LARGE_SCALE, has_large_bias, has_large_inputs, has_large_output, is_large
from bnlm.doctor.observation import Output

#: R01: times the reference. CS231n notes, "neural networks 3": check the loss at chance. The factors are ours.
LOSS_WARNING, LOSS_CRITICAL, LOSS_NOTE = 1.1, 1.5, 0.8
#: R01 also wants what logits of std 1 cost, at most this share of the reference: torch's default output layer after a
#: normalization has std 0.58, which may cost 0.36 nat.
LOGITS_COST, LOGITS_SHARE = 0.5, 0.25
#: R01 of logits that are judged one by one: what torch's default output layer makes of one is the same for almost all
#: examples, and where few are positive a logit of 0.5 or 1 costs 1.3 or 1.7 of ln 2.
BINARY_WARNING, BINARY_CRITICAL = 1.5, 2.0
#: R01 of classes: the same where more than this share of the targets are of one.
ONE_CLASS = 0.8
#: R01 of a regression: times the loss of an output of zero. Two unit vectors that know nothing of each other are at 2.
REGRESSION_NOTE, REGRESSION_WARNING, REGRESSION_CRITICAL = 1.6, 3.0, 4.0
#: R01 of a regression, whatever its standard error: outputs that explode differ by factors among themselves.
REGRESSION_SURE = 10.0
#: R01 of a regression: loss of an output of zero over that of the best constant, of squares 1 + (mean / std)²; of
#: other losses the square of that.
FAR_TARGETS, VERY_FAR_TARGETS, FARTHEST_TARGETS = 10.0, 15.0, 100.0
#: The same of a network that has learned them: share of the loss of the best constant; how the advice begins.
FOLLOWED, BRING = 0.15, "Bring the targets to mean 0 and variance 1"
#: The same of a network that starts at their mean: times the loss of the best constant.
AT_THE_MEAN = 3.0
#: R01 of a regression: what torch's default output layer may make of nothing, with a std of 0.58; targets that are
#: smaller, such as maps that are zero almost everywhere, make that look large. Targets as far from zero are near.
REGRESSION_USUAL = 1 / 3
#: R01: observed steps until which the losses of the first batches are in.
POOLED = 5
#: R02: std of an example's logits. Gaussian logits that know nothing cost about std² / 2 above the reference.
#: Output layers of gain 1 or of Glorot's init have 1.0 to 1.3 and train as well: a note until 1.5.
LOGIT_STD_NOTE, LOGIT_STD_WARNING, LOGIT_STD_CRITICAL = 1.0, 1.5, 3.0
#: R01 of a loss that nothing is known of: the first over the median of these steps' losses; steps until it is judged.
STICK, STICK_WARNING, STICK_CRITICAL, LONGEST_STICK = (30, 50), 3.0, 10.0, 200
#: R01, R02: the same std of inputs of variance 1 and weights of a usual size.
USUAL_INPUTS = 3.0
LARGE_INPUTS = (
    "Bring the inputs to mean 0 and variance 1: what comes to the first activation is far larger than weights of this "
    "size would make of such."
)


TRAINED = (
    "Nothing, where the network was trained before; a new output layer may start with smaller weights "
    "(`layer.weight.data *= 0.1`)."
)
SMALLER = "A smaller output layer spares the first steps (init.output_scale=0.1; in torch `layer.weight.data *= 0.1`)."
ZERO_BIAS = (
    "Zero the output layer's bias (init.output_bias=zeros; in torch `layer.bias.data.zero_()`), or set it to the log "
    "of the class frequencies: it is what makes the logits."
)
DRAW_ALL = (
    "Draw the weights of all layers with the gain of the activation (init=kaiming_normal; in torch "
    "nn.init.kaiming_normal_), those of the output layer smaller still (init.output_scale=0.1)."
)


def output_findings(history: History) -> Iterator[Finding]:
    """Yield what is wrong with the first losses; nothing if step 0 was not observed, or once they have been judged."""
    yield from _hockey_stick(history)
    if history.first is None or history.first.step > 0 or history.observed > POOLED:
        return
    output = history.first.output
    if output is None or not math.isfinite(output.loss):  # what is infinite is R08's
        return
    loss, error = output.loss, output.loss_error
    if history.observed > 1 and history.reference.first_losses and not history.facts.frozen:
        # The batches after the first tell more of the start, as long as the steps between have not made it worse.
        if history.reference.first_losses[0] > 0:
            loss = min(loss, loss * history.losses.first / history.reference.first_losses[0])
        error /= math.sqrt(len(history.reference.first_losses))
    elif was_trained_before(history):
        yield Finding(
            "R01", "note", "output", 0, loss, LOSS_NOTE * output.reference,
            f"the first loss is {loss:.2f} where knowing nothing gives {output.reference:.2f}: the network has been "
            "trained before, knows how frequent its classes are, or sees its targets.",
            "Nothing, if it was trained before or started so; otherwise look for the target among the inputs.",
        )  # fmt: skip
    if output.kind == "regression":
        for finding in _regression_loss(history, output, loss, error):
            large = finding.value == loss and has_large_inputs(history)
            yield replace(finding, suggestion=LARGE_INPUTS) if large else finding
    else:
        yield from _sure_and_wrong(history, output, loss, error, "output")
    # Of other distances it is not known whether they are from what is to be learned.
    for number, other in enumerate(history.first.others if history.observed == 1 else [], start=2):
        if other.kind != "regression" and math.isfinite(other.loss):
            where = f"output of loss {number} ({other.kind})"
            yield from _sure_and_wrong(history, other, other.loss, other.loss_error, where)


def was_trained_before(history: History) -> bool:
    """Return whether the first loss is far below chance: the network is as it was learned to be."""
    output = history.first.output if history.first is not None else None
    return output is not None and output.kind != "regression" and output.loss < LOSS_NOTE * output.reference


def _hockey_stick(history: History) -> Iterator[Finding]:
    """Yield R01 of a loss that nothing is known of, where it falls at once, and weights or inputs start too large."""
    if history.reference.is_known or history.first is None or history.first.step > 0 or not history.losses.early:
        return
    soon = list(history.losses.last)[STICK[0] : STICK[1]]
    if len(soon) < STICK[1] - STICK[0] or history.losses.steps > LONGEST_STICK:
        return
    first, level = history.losses.early[0], statistics.median(soon)
    if not first > STICK_WARNING * level > 0:
        return
    roles = ("hidden", "output") if is_large(history) else ("output",)  # one alone may be no weight of a layer
    judged = [p for p in history.facts.parameters.values() if p.role in roles]
    large = [p.name for p in judged if p.std * math.sqrt(p.fan_in) > LARGE_SCALE]
    large_inputs = has_large_inputs(history)
    if large or large_inputs:
        what = "the inputs" if large_inputs else f"{in_words(large)}"
        yield Finding(
            "R01", "critical" if first > STICK_CRITICAL * level else "warning", "output", 0, first,
            STICK_WARNING * level,
            f"the first loss is {first:.3g}, and {level:.3g} after {STICK[1]} steps: these only undo the start, for "
            f"{what} {'are' if large_inputs or len(large) > 1 else 'is'} too large.",
            LARGE_INPUTS if large_inputs else DRAW_ALL,
        )  # fmt: skip


def _sure_and_wrong(history: History, output: Output, loss: float, error: float, where: str) -> Iterator[Finding]:
    """Yield R01 and R02 of one loss over classes."""
    limit = LOSS_WARNING * output.reference
    if output.kind == "cross_entropy":
        if math.isnan(output.logit_std):
            return  # cosines, of which a scale of 10 to 60 makes logits, rightly
        limit = max(limit, output.reference + min(LOGITS_COST, LOGITS_SHARE * output.reference))
    spread, single = output.logit_std, error
    if not (spread > LOGIT_STD_WARNING and not history.facts.frozen):
        # Large logits either know the answer, and the loss is below the reference, or they do not. But the loss of one
        # batch of them is far from certain, and a network that is fine-tuned may be sure, and wrong, of its old task.
        error *= 3
    biased = has_large_bias(history)
    smaller = ZERO_BIAS if biased else SMALLER
    # No usual init draws an output layer like that.
    unusual = "warning" if biased or has_large_output(history) else "note"
    if not loss > limit + error:
        # Where the weights tell, a batch need not be sure of it.
        if loss > LOSS_WARNING * output.reference + (3 * single if unusual == "note" else 0.0):
            if spread > LOGIT_STD_NOTE:
                yield _confident(where, unusual, spread, output, loss, smaller)
            yield Finding(
                "R01", unusual, where, 0, loss, LOSS_WARNING * output.reference,
                f"the first loss is {loss:.2f} where knowing nothing gives {output.reference:.2f}.",
                smaller,
            )  # fmt: skip
        return
    binary = output.kind == "binary_cross_entropy"
    # Where almost all are of one class, what the output layer happens to make of all examples costs the same for all.
    one_class = binary or (bool(output.counts) and max(output.counts) > ONE_CLASS * sum(output.counts))
    critical = loss > (BINARY_CRITICAL if one_class else LOSS_CRITICAL) * output.reference + error
    severity = "critical" if critical else "warning"
    if output.kind == "cross_entropy" and not spread > LOGIT_STD_WARNING:
        severity = "warning" if critical else unusual
    if binary and not (loss > BINARY_WARNING * output.reference + error or spread > LOGIT_STD_WARNING):
        severity = unusual
    graded = "critical" if spread > LOGIT_STD_CRITICAL else "warning" if spread > LOGIT_STD_WARNING else unusual
    remedy = ZERO_BIAS if biased else ""
    remedy = LARGE_INPUTS if has_large_inputs(history) else DRAW_ALL if is_large(history) else remedy
    adapts = history.facts.frozen and (spread <= LOGIT_STD_CRITICAL or _is_adapted(history) or _is_new(history))
    if adapts or (spread <= LOGIT_STD_CRITICAL and _is_new_on_trained(history)):
        severity = graded = "note"  # a new layer on features that are as large as they were learned to be
        remedy = TRAINED
    if heavy_dropouts(history):
        remedy = LESS_DROPOUT  # what it leaves it makes larger
    if spread > LOGIT_STD_NOTE:
        change = (
            "Scale the output layer's weights down and zero its bias: init.output_scale=0.1 init.output_bias=zeros; in "
            "torch `layer.weight.data *= 0.1; layer.bias.data.zero_()`."
        )
        yield _confident(where, graded, spread, output, loss, remedy or change)
    yield Finding(
        "R01", severity, where, 0, loss, limit,
        f"the first loss is {loss:.2f} where knowing nothing gives {output.reference:.2f}.",
        remedy or
        "Scale the output layer's weights down (init.output_scale=0.1), or set its bias to the log of the class "
        "frequencies.",
    )  # fmt: skip


def _confident(where: str, severity: str, spread: float, output: Output, loss: float, change: str) -> Finding:
    """Return R02."""
    within = "" if output.kind == "binary_cross_entropy" else " within an example"
    limits = (LOGIT_STD_CRITICAL, LOGIT_STD_WARNING, LOGIT_STD_NOTE)
    return Finding(
        "R02", severity, where, 0, spread, next((limit for limit in limits if spread > limit), LOGIT_STD_NOTE),
        f"before any training the logits have std {spread:.1f}{within}, so the network is confidently wrong: loss "
        f"{loss:.2f} where {output.reference:.2f} is chance. The first steps only squash the output layer.",
        change,
    )  # fmt: skip


def _is_adapted(history: History) -> bool:
    """Return whether the output layer is kept as it is, or starts as one: it was trained for something else before."""
    facts = history.facts
    trained = any(p.role == "output" and not p.zero for p in facts.parameters.values())
    return bool(facts.parameters) and not facts.fresh and not trained


def _is_new(history: History) -> bool:
    """Return whether the output layer is as torch draws it: what makes it sure are the features."""
    drawn = [p.fresh for p in history.facts.parameters.values() if p.role == "output"]
    return bool(drawn) and all(drawn)


def _is_new_on_trained(history: History) -> bool:
    """Return whether the output layer alone is as torch draws it, on features that weights of a usual size made large.

    Where neither the weights nor the inputs are large, it is what the network has learned before that makes them so.
    """
    assert history.first is not None
    hidden = [p.fresh for p in history.facts.parameters.values() if p.role == "hidden"]
    inputs = next(iter(history.first.of("preactivation_std").values()), math.inf)
    new = _is_new(history) and bool(hidden) and not any(hidden)
    return new and inputs < USUAL_INPUTS and not is_large(history)


def _regression_loss(history: History, output: Output, loss: float, error: float) -> Iterator[Finding]:
    reference, constant = output.reference, output.constant
    farther = history.reference.zero_over_constant ** (1 if output.squared else 2)
    # Targets of one batch stray far from their own mean square, and a fresh network's outputs add to the loss.
    error = 3 * error if loss < REGRESSION_SURE * reference else 0.0
    if loss > REGRESSION_WARNING * reference + error:
        severity = "critical" if loss > REGRESSION_CRITICAL * reference + error else "warning"
        if loss < REGRESSION_USUAL:
            severity = "note"
        yield Finding(
            "R01", severity, "output", 0, loss, REGRESSION_WARNING * reference,
            f"the first loss is {loss:.3g} where an output of zero gives {reference:.3g}.",
            "Scale the output layer's weights down, or bring the targets to mean 0 and variance 1.",
        )  # fmt: skip
    elif loss > max(REGRESSION_NOTE * reference + (0.0 if has_large_output(history) else error), REGRESSION_USUAL):
        severity = "warning" if has_large_output(history) else "note"
        yield Finding(
            "R01", severity, "output", 0, loss, REGRESSION_NOTE * reference,
            f"the first loss is {loss:.3g} where an output of zero gives {reference:.3g}.",
            SMALLER,
        )  # fmt: skip
    elif farther > FAR_TARGETS and loss > AT_THE_MEAN * constant:
        # Targets of one small batch may lie close together by chance.
        farthest = farther > FARTHEST_TARGETS and history.observed > 1
        severity = "critical" if farthest else "warning" if farther > VERY_FAR_TARGETS else "note"
        if reference < REGRESSION_USUAL:
            severity = "note"
        yield Finding(
            "R01", severity, "output", 0, reference, FAR_TARGETS * constant,
            f"the targets are far from zero beside their spread: an output of zero has a loss of {reference:.3g}, the "
            f"best constant {constant:.3g}. A network that starts near zero has to go there first.",
            f"{BRING}, or set the output's bias to their mean.",
        )  # fmt: skip
