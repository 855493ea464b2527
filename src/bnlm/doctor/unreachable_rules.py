"""R13 at once, of outputs from which a loss cannot fall: probabilities for logits, an activation before the loss."""

from __future__ import annotations

import math
from collections.abc import Iterator

from bnlm.doctor.finding import Finding
from bnlm.doctor.history import History
from bnlm.doctor.observation import Output

#: R13: observed steps in which all outputs are probabilities, to be so by design.
CERTAIN = 3
#: The same of outputs between 0 and 1, where logits may be for a while.
CERTAIN_LATER = 10
#: R13 of outputs that come out of an activation: share of the reference that is out of their reach.
UNREACHED_WARNING, UNREACHED_CRITICAL = 0.05, 0.25
#: How the advice begins where there is but one.
SEVERAL_OUTPUTS = "Give the network one output for each class"
#: Where each output is held against the targets of all.
SHAPES = "Give outputs and targets the same shape"
SAME_SHAPE = (
    f"{SHAPES}: now each output is held against the targets of other examples too, as torch broadcasts (N, 1) beside "
    "(N,) to (N, N)."
)
#: How the advice begins where an activation is to go.
REMOVE = "Remove the"


def unreachable_findings(history: History) -> Iterator[Finding]:
    """Yield what the outputs of the last observed steps tell, whatever the loss has done so far."""
    yield from _of_probabilities(history)
    yield from _out_of_reach(history)
    yield from _cut_logits(history)
    yield from _of_one_class(history)
    yield from _crossed(history)


def _of_probabilities(history: History) -> Iterator[Finding]:
    outputs = [o.output for o in history.recent if o.output is not None and not o.output.activation]
    certain = min(CERTAIN, history.total_steps)
    if history.first is None or len(outputs) < certain or any(math.isnan(output.floor) for output in outputs):
        return
    if all(output.floor == -math.inf for output in outputs):
        how = "what comes to nll_loss is no log-probabilities (their exponentials do not sum to 1)."
        change = "Give it the output of log_softmax over the classes (dim=1), or use cross_entropy, which takes logits."
        if outputs[0].kind == "binary_cross_entropy":
            how = "some targets of binary_cross_entropy are below 0 or above 1, and it wants probabilities."
            change = "Bring the targets to 0 and 1: of -1 and 1 that is (target + 1) / 2."
        yield Finding(
            "R13", "critical", "loss", history.first.step, history.losses.recent(100), -math.inf,
            f"the loss can fall for ever without anything being learned: {how}",
            change,
        )  # fmt: skip
        return
    what = (
        "what comes to cross_entropy sums to 1 in each example, so it is probabilities already, and it makes a softmax "
        "of them once more."
    )
    change = "Give it logits: remove the softmax before the loss (nll_loss wants log_softmax)."
    if outputs[0].kind != "cross_entropy":
        # A fresh output may lie between 0 and 1 for a while; a sigmoid's has to.
        after_sigmoid = next(reversed(history.first.kinds.values()), None) == "sigmoid"
        below = history.losses.recent(20) < history.reference.weight * outputs[0].floor
        if not after_sigmoid or len(outputs) < CERTAIN_LATER or below:
            return
        what = (
            "what comes to binary_cross_entropy_with_logits is between 0 and 1, for it has passed a sigmoid already, "
            "and it takes the sigmoid of that once more."
        )
        change = "Give it logits: remove the sigmoid before the loss (binary_cross_entropy wants probabilities)."
    yield Finding(
        "R13", "critical", "loss", history.first.step, history.losses.recent(100), outputs[0].floor,
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
        within_reach(output),
    )  # fmt: skip


def _cut_logits(history: History) -> Iterator[Finding]:
    """Yield R13 of logits that a ReLU makes zero where they are below it: these have no gradient any more."""
    output = history.recent[-1].output
    if output is not None and output.activation == "relu" and output.kind == "cross_entropy":
        yield Finding(
            "R13", "warning", "output", history.step, output.loss, output.floor,
            "the logits come straight out of a ReLU: where it makes one zero no gradient comes back, and a class that "
            "has lost all its examples to that is never learned.",
            within_reach(output),
        )  # fmt: skip


def _of_one_class(history: History) -> Iterator[Finding]:
    """Yield R13 of a softmax over a single class."""
    outputs = [o.output for o in history.recent if o.output is not None]
    if not outputs or history.first is None:
        return
    if all(output.kind == "cross_entropy" and output.reference == 0 for output in outputs):
        how = "the loss is 0 whatever the network returns: cross_entropy over a single class"
    elif len(outputs) >= CERTAIN and all(output.floor == math.inf for output in outputs):
        how = "each probability is 1 whatever comes in, as of a softmax over a single output"
    else:
        return
    yield Finding(
        "R13", "critical", "loss", history.first.step, outputs[-1].loss, 0.0,
        f"{how}.",
        f"{SEVERAL_OUTPUTS}, or of two classes one output and binary_cross_entropy_with_logits.",
    )  # fmt: skip


def _crossed(history: History) -> Iterator[Finding]:
    """Yield R13 of outputs that are held against the targets of other examples."""
    outputs = [o.output for o in history.recent if o.output is not None]
    certain = min(CERTAIN, history.total_steps)
    if history.first is not None and len(outputs) >= certain and all(output.broadcast for output in outputs):
        yield Finding(
            "R13", "critical", "loss", history.first.step, history.losses.recent(100), 0.0,
            "outputs and targets differ in shape, so that the loss compares each output with the targets of all "
            "examples: the mean of these is the best that can be learned.",
            SAME_SHAPE,
        )  # fmt: skip


def within_reach(output: Output) -> str:
    """Return what to change where outputs come out of an activation that does not reach what is wanted."""
    instead = ", or bring the targets to its range." if output.kind == "regression" else ": it takes logits."
    return f"{REMOVE} {output.activation} before the loss{instead}"
