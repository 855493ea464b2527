"""R09 of how an optimizer is set up: gradients that nobody sets to zero, momentum, weight decay."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator

from bnlm.doctor.finding import Finding, in_words
from bnlm.doctor.history import History
from bnlm.doctor.weight_decay import DECAY_WARNING, LOWER_DECAY, decay_advice, decay_of, rescaled_decay
from bnlm.doctor.weight_updates import hidden_updates

#: R09 of gradients that are never set to zero: observed steps in a row; how the advice begins.
LEFT_GRADIENTS, ZERO_GRAD = 3, "Call zero_grad()"
#: R09 of weight decay that an optimizer rescales: log10 of update:data, share of the reference left late in the run.
MOVED_BY_DECAY, LEFT_BY_DECAY = -2.3, 0.3
#: R09 of momentum: what some take for large batches; share of the run that it adds up.
USUAL_MOMENTUM, MEMORY_SHARE = 0.995, 0.1


def left_gradients(history: History) -> Iterator[Finding]:
    """Yield R09 where the gradients of all batches are added up."""
    count = history.steps_with_left_gradients
    if count >= LEFT_GRADIENTS:
        yield Finding(
            "R09", "critical", "optimizer", history.step, count, LEFT_GRADIENTS,
            f"each step is taken with the gradients of all batches so far: before {count} observed steps in a row they "
            "had not been set to zero.",
            f"{ZERO_GRAD} of the optimizer in each training_step, before manual_backward(loss); with automatic "
            "optimization look at the module's optimizer_zero_grad.",
        )  # fmt: skip


def long_memory(history: History) -> Iterator[Finding]:
    """Yield R09 where momentum adds up the gradients of so many steps that it outlasts much of the run."""
    momentum = history.facts.momentum
    steps = 1 / (1 - momentum) if momentum < 1 else math.inf
    if momentum > USUAL_MOMENTUM and steps > MEMORY_SHARE * history.total_steps:
        yield Finding(
            "R09", "warning", "optimizer", history.step, momentum, USUAL_MOMENTUM,
            f"a momentum of {momentum:g} adds up the gradients of {steps:.0f} steps, of a run of "
            f"{history.total_steps:.0f}: steps become that many times as large, and go on long after the loss rises.",
            "Lower the optimizer's momentum to 0.9.",
        )  # fmt: skip


def heavy_decay(history: History) -> Iterator[Finding]:
    """Yield R09 where weight decay alone takes so much in a step that little of what is learned stays."""
    groups = {name: one.group for name, one in history.facts.parameters.items() if one.role == "hidden"}
    taken = {group: decay_of(history, group) for group in set(groups.values())}
    names = [name for name, group in groups.items() if taken[group] > DECAY_WARNING]
    if names:
        most = max(taken.values())
        yield Finding(
            "R09", "warning", in_words(names), history.step, math.log10(most), math.log10(DECAY_WARNING),
            f"{in_words(names)}: weight decay takes {most:.1%} of the weights away in each step: half of what is "
            f"learned is gone after {math.log(2) / most:.0f} steps.",
            decay_advice(history.facts),
        )  # fmt: skip
    elif groups and history.is_late and (decay := rescaled_decay(history)):
        moved = statistics.median(hidden_updates(history).values() or [-math.inf])
        if moved > MOVED_BY_DECAY and history.losses.recent(100) > LEFT_BY_DECAY * history.losses.scale:
            yield Finding(
                "R09", "warning", in_words(list(groups)), history.step, moved, MOVED_BY_DECAY,
                f"{in_words(list(groups))}: a weight decay of {decay:g} is added to the gradient before the optimizer "
                f"brings that to the size of 1, and outweighs it: after {history.losses.steps} steps the loss is "
                f"{history.losses.recent(100):.3g}.",
                f"{LOWER_DECAY} ({decay:g}) by 10 or more, or take AdamW.",
            )  # fmt: skip
