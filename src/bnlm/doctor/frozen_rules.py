"""R12: what is meant to learn and does not, for no gradient comes to it or no optimizer holds it."""

from __future__ import annotations

import math
from collections.abc import Iterator

from bnlm.doctor.finding import Finding, in_words
from bnlm.doctor.history import History

#: R12: optimizer steps, and observed steps, without a gradient.
FROZEN_WARNING, FROZEN_CRITICAL = 10, 50
#: R12: a smaller share of all elements does no harm: what the last of many blocks has no use for, a second head.
LEFT_OVER = 0.05
#: R12 of random weights: share of all elements, and of the reference that is left late in the run.
MOST, LITTLE_LEARNED = 0.5, 0.5


def frozen_findings(history: History) -> Iterator[Finding]:
    """Yield what does not learn."""
    yield from _fresh(history)
    yield from _without_gradient(history)
    yield from _in_no_optimizer(history)
    yield from _without_rate(history)
    yield from _unregistered(history)


def _fresh(history: History) -> Iterator[Finding]:
    """Yield R12 of weights that nobody has trained: a remark, unless they are most of a network that learns little.

    Random features may be meant, and a matrix of zeros beside them is an adapter's.
    """
    fresh, left = history.facts.fresh, history.losses.recent(100) / (abs(history.reference.loss) or math.inf)
    adapts = any(one.zero for one in history.facts.parameters.values())
    harms = history.is_late and history.facts.fresh_share > MOST and not adapts and left > LITTLE_LEARNED
    if fresh and (history.step == 0 or harms):
        severity = "note" if not harms else "warning" if history.losses.improves() else "critical"
        how = f"; after {history.losses.steps} steps {left:.0%} of what knowing nothing costs is left" if harms else ""
        yield Finding(
            "R12", severity, in_words(fresh), 0, len(fresh), 0,
            f"{in_words(fresh)}: not to be trained (requires_grad=False), and still as torch drew it at random{how}.",
            "Nothing, if random features are meant; otherwise load its weights, or set requires_grad=True.",
        )  # fmt: skip


def _without_gradient(history: History) -> Iterator[Finding]:
    if history.recent and history.recent[-1].lr_share == 0:
        return
    frozen: list[str] = []
    longest = 0
    for name, (since, times) in history.ungraded_since.items():
        steps = history.step - since
        if steps >= FROZEN_WARNING and times >= 3 and name not in history.facts.not_optimized:
            frozen.append(name)
            longest = max(longest, steps)
    fed_with_zeros = history.fed_with_zeros()
    frozen = [name for name in frozen if name not in fed_with_zeros]
    # A bias before a BatchNorm has a gradient of rounding errors only, which may be nought.
    frozen = [name for name in frozen if name.rpartition(".")[0] not in history.facts.redundant_biases]
    facts = history.facts.parameters
    graded = history.recent[-1].of("gradient_std") if history.recent else {}
    # What is the same for all examples may cancel: a bias before a difference of two outputs.
    cancels = [n for n in frozen if n.endswith(".bias") and graded.get(n.removesuffix("bias") + "weight", 0.0) > 0]
    if frozen and len(cancels) == len(frozen):
        yield Finding(
            "R12", "note", in_words(frozen), history.step, longest, FROZEN_WARNING,
            f"{in_words(frozen)}: no gradient for {longest} steps, though the weights beside have one: what follows "
            "takes away what is the same for all examples.",
            "Leave the bias out (bias=False).",
        )  # fmt: skip
    elif frozen:
        matrix = any(facts[name].role != "vector" and facts[name].shape[-1] > 1 for name in frozen)
        elements = {name: math.prod(one.shape) for name, one in facts.items()}
        left_over = sum(elements[name] for name in frozen) < LEFT_OVER * sum(elements.values())
        critical = longest >= FROZEN_CRITICAL and matrix and not left_over
        change = "Look for a detach(), a no_grad() or a module that is not called; otherwise set requires_grad=False."
        if not history.losses.steps and not graded:
            change = f"Return the loss from training_step: none has come back. Otherwise: {change}"
        yield Finding(
            "R12", "critical" if critical else "warning", in_words(frozen), history.step, longest, FROZEN_WARNING,
            f"{in_words(frozen)}: no gradient for {longest} steps, though meant to be trained.",
            change,
        )  # fmt: skip


def _in_no_optimizer(history: History) -> Iterator[Finding]:
    # What is in no optimizer on purpose, such as a target network, gets no gradient either.
    missing = [n for n, parameter in history.facts.not_optimized.items() if history.facts.gets_gradient(parameter)]
    if missing and history.step >= FROZEN_WARNING:
        matrix = any(history.facts.parameters[name].role != "vector" for name in missing)
        # Where what is around them is frozen, as `BaseFinetuning` does but for normalizations, they may join later.
        severity = "critical" if matrix else "note" if history.facts.frozen else "warning"
        yield Finding(
            "R12", severity, in_words(missing), history.step, len(missing), 0,
            f"{in_words(missing)}: in no optimizer, though the backward pass brings a gradient.",
            "Add it to the optimizer's parameters, or set requires_grad=False.",
        )  # fmt: skip


def without_rate(history: History) -> list[str]:
    """Return the parameters in a group whose learning rate is zero, beside others, and which have not moved."""
    facts = history.facts.parameters
    none = [name for name, one in facts.items() if one.group is not None and one.lr == 0]
    if not none or not any(one.lr > 0 for one in facts.values()):
        return []
    moves = any(o.of("update_to_data").get(name, -math.inf) > -math.inf for o in history.recent for name in none)
    return [] if moves else none


def _without_rate(history: History) -> Iterator[Finding]:
    names = without_rate(history)
    if names and history.step >= FROZEN_WARNING and history.observed > 1:
        yield Finding(
            "R12", "warning", in_words(names), history.step, history.step, FROZEN_WARNING,
            f"{in_words(names)}: the learning rate of their group is 0, so that they do not change.",
            "Give that group a learning rate; what is not to learn is better frozen (requires_grad=False), which saves "
            "its gradient.",
        )  # fmt: skip


def _unregistered(history: History) -> Iterator[Finding]:
    graded = {n: p for n, p in history.facts.unregistered.items() if history.facts.gets_gradient(p)}
    if not graded or history.step < FROZEN_WARNING:
        return
    elements = sum(parameter.numel() for parameter in graded.values())
    registered = sum(math.prod(one.shape) for one in history.facts.parameters.values())
    yield Finding(
        "R12", "critical" if elements >= LEFT_OVER * (elements + registered) else "warning", in_words(list(graded)),
        history.step, len(graded), 0,
        f"{in_words(list(graded))}: in a plain list or dict, or no nn.Parameter, so that torch does not know of it: it "
        "gets a gradient, and is in no optimizer, in no checkpoint, and stays on its device.",
        "Put it into nn.ModuleList, nn.ModuleDict or nn.ParameterList, make a tensor an nn.Parameter; set "
        "requires_grad=False if it is not to learn.",
    )  # fmt: skip
