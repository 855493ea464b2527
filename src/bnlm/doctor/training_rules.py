"""Rules over a window of observed steps: R03, R04, R06 while training, R07, R09 to R12."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from bnlm.doctor.finding import Finding, in_words
from bnlm.doctor.history import History
from bnlm.doctor.initial_rules import SMOOTH
from bnlm.stats import RELU_LIKE

#: R03: SageMaker's SaturatedActivation and DeepDiagnosis warn at half of a layer.
FLAT_WARNING, FLAT_CRITICAL = 0.5, 0.9
#: R04: ReLU networks with torch's default init sit at 20 to 33 % and train well.
DEAD_WARNING, DEAD_CRITICAL = 0.5, 0.8
#: R04: below this share of its first value the loss shows that the units left are enough: no more than a note.
LEARNED = 0.5
#: R09: log10 of update:data. Healthy hidden layers: -2.2 to -3.1, before a normalization up to -1.5.
LARGE_WARNING, LARGE_CRITICAL, NORM_ALLOWANCE, OUTPUT_ALLOWANCE = -1.8, -1.0, 0.5, 1.0
#: R10: gradsnitch and others; a rate of 1e-3 of the healthy one reads -5.1 to -5.7.
SMALL_WARNING, SMALL_CRITICAL = -4.0, -5.0
#: Losses to wait for before the lack of a fall counts: R06 and R10; R09, at most 0.8 of the run.
PATIENCE, LARGE_PATIENCE = 100, 250
#: R11: dex between hidden matrices. Healthy: 0.2 to 0.9.
SPREAD_WARNING = 1.5
#: R12: optimizer steps, and observed steps, without a gradient.
FROZEN_WARNING, FROZEN_CRITICAL = 10, 50


def training_findings(history: History) -> Iterator[Finding]:
    """Yield what is wrong now; nothing before the first steps are over."""
    yield from _frozen(history)
    if not history.warm:
        return
    yield from _saturated(history)
    yield from _dead(history)
    yield from _gradient(history)
    yield from _spikes(history)
    yield from _updates(history)


def _kinds(history: History) -> dict[str, str]:
    return history.recent[-1].kinds if history.recent else {}


def _saturated(history: History) -> Iterator[Finding]:
    kinds, shares = _kinds(history), history.median("saturation")
    output = history.first.output if history.first is not None else None
    judged = [layer for layer in shares if kinds.get(layer) in SMOOTH]
    if judged and kinds[judged[-1]] == "sigmoid" and output is not None and output.kind == "binary_cross_entropy":
        judged.pop()  # the output: sure of itself is what it shall become
    flat = [layer for layer in judged if shares[layer] > FLAT_WARNING]
    flat += [layer for layer in shares if layer in history.facts.clamps and shares[layer] > FLAT_CRITICAL]
    if flat:
        worst = max(shares[layer] for layer in flat)
        yield Finding(
            "R03", "critical" if worst > FLAT_CRITICAL else "warning", in_words(flat), history.step, worst,
            FLAT_WARNING,
            f"{in_words(flat)}: up to {worst:.0%} of the {kinds[flat[0]]} outputs stay on their flat part, where "
            "hardly any gradient passes.",
            "Lower optimizer.lr; if they were flat from the start, a smaller gain (init=kaiming_normal) or "
            "normalization=batch.",
        )  # fmt: skip


def _dead(history: History) -> Iterator[Finding]:
    if history.observed < 10:
        return
    kinds, shares = _kinds(history), dict(history.recent[-1].of("dead_units"))
    # A layer that falls silent as a whole is seen long before the window over single units has moved on.
    shares |= {layer: 1.0 for layer in _silent(history) if layer in shares}
    dead = [layer for layer, value in shares.items() if value > DEAD_WARNING]
    if dead:
        worst = max(shares[layer] for layer in dead)
        harmless = history.improves() and history.recent_loss(50) < LEARNED * history.first_loss
        severity = "critical" if worst > DEAD_CRITICAL else "note" if harmless else "warning"
        yield Finding(
            "R04", severity, in_words(dead), history.step, worst,
            DEAD_WARNING,
            f"{in_words(dead)}: up to {worst:.0%} of the {kinds.get(dead[0], 'activation')} units have not responded "
            f"to any example of the last {min(history.observed, 20)} observed steps; they learn nothing more.",
            "Lower optimizer.lr, look at the biases and the scale of the inputs, use init=kaiming_normal, or an "
            "activation without a dead side (model.activation=leaky_relu or gelu).",
        )  # fmt: skip


def _silent(history: History) -> list[str]:
    """Return the layers whose outputs were all zero in the last three observed steps."""
    kinds, last = _kinds(history), [o.of("activation_std") for o in list(history.recent)[-3:]]
    return [layer for layer in last[-1] if kinds.get(layer) in RELU_LIKE and all(o.get(layer) == 0 for o in last)]


def _gradient(history: History) -> Iterator[Finding]:
    if history.improves() or history.steps_with_loss < PATIENCE:
        return
    kinds, stds = _kinds(history), history.median("activation_gradient_std")
    for kind in dict.fromkeys(kinds.values()):
        chain = [layer for layer in kinds if kinds[layer] == kind and layer in stds]  # in forward order
        if len(chain) < 3 or not stds[chain[-1]] > 0 or stds[chain[0]] == 0:
            continue  # none at all is no matter of scale: cut off, or dead
        ratio = stds[chain[0]] / stds[chain[-1]]
        if 0.1 <= ratio <= 10:
            continue
        critical = not 0.01 <= ratio <= 100
        yield Finding(
            "R06", "critical" if critical else "warning", in_words(chain), history.step, ratio,
            0.1 if ratio < 1 else 10,
            f"the loss gradient {'vanishes' if ratio < 1 else 'explodes'} on its way back (std {stds[chain[-1]]:.2g} "
            f"at {chain[-1]}, {stds[chain[0]]:.2g} at {chain[0]}), and the loss does not fall.",
            "Use the gain of the activation (init=kaiming_normal init.gain=auto), a normalization, or residual "
            "connections; clip the gradients of a recurrent network.",
        )  # fmt: skip


def _spikes(history: History) -> Iterator[Finding]:
    recent = [step for step in history.spikes if step > history.steps_with_loss - 500]
    norms = [norm for o in history.recent if (norm := o.gradient_norm) is not None]
    # A gradient that vanishes with the loss makes every other one look large.
    start = statistics.median(history.early_norms) if history.early_norms else 0.0
    high = [
        index
        for index in range(3, len(norms))
        if norms[index] > 3 * start and norms[index] > max(10 * _around(norms, index), 3 * start) > 0
    ]
    if len(recent) >= 3 or len(high) >= 3:
        count = max(len(recent), len(high))
        # Norms alone rise for a while wherever a network leaves a plateau.
        severity = "note" if len(recent) < 3 and history.improves() else "warning"
        yield Finding(
            "R07", severity, "loss" if len(recent) >= 3 else "gradients", history.step, count, 3,
            f"{count} steps stand out: a loss over 3 times, or a gradient norm over 10 times, that of the steps around "
            "them.",
            "Clip the gradients (trainer.gradient_clip_val=1.0), warm the learning rate up, and look at the batches of "
            "these steps.",
        )  # fmt: skip


def _around(norms: list[float], index: int) -> float:
    """Return what is usual near one of the norms: the larger of the medians of the five before and after it."""
    return max(
        statistics.median(part) for part in (norms[max(0, index - 5) : index], norms[index + 1 : index + 6]) if part
    )


def _updates(history: History) -> Iterator[Finding]:
    if history.recent[-1].lr_share < 0.1:
        return
    updates = history.median("update_to_data")
    facts = history.facts.parameters
    # What starts at zero moves far beside its own size, rightly.
    judged = {n: u for n, u in updates.items() if n in facts and facts[n].role != "vector" and facts[n].std > 0}
    hidden = {name: u for name, u in judged.items() if facts[name].role == "hidden"}
    moved = {name: u for name, u in hidden.items() if name not in _fed_with_zeros(history)}
    limits = {
        name: NORM_ALLOWANCE * facts[name].feeds_norm + OUTPUT_ALLOWANCE * (facts[name].role != "hidden")
        for name in judged
    }
    large = [name for name, u in judged.items() if u > LARGE_WARNING + limits[name]]
    large_hidden = [name for name in large if name in hidden]
    # Small networks that train well reach -1.3: below the critical limit, something has to suffer.
    improves = history.improves()
    # AdamW's first steps are large everywhere, and recurrent networks that train well may stay at chance for 200.
    waits = history.steps_with_loss < min(LARGE_PATIENCE, 0.8 * history.total_steps)
    suffers = not (improves or waits) or history.steps_above > 0
    suffers = suffers or bool(list(_saturated(history)) + list(_dead(history)))
    extreme = [name for name in large_hidden if judged[name] > LARGE_CRITICAL + limits[name]]
    if extreme or (large and suffers):
        worst = max(large, key=lambda name: judged[name])
        critical = judged[worst] > LARGE_CRITICAL + limits[worst]
        yield Finding(
            "R09", "critical" if critical else "warning", in_words(large), history.step, judged[worst], LARGE_WARNING,
            f"{in_words(large)}: each step changes the weights by up to 10^{judged[worst]:.1f} of their size; about "
            "10^-3 is healthy.",
            "Divide optimizer.lr by 3 to 10, warm it up, or clip the gradients (trainer.gradient_clip_val=1.0).",
        )  # fmt: skip
    spread = max(hidden.values()) - min(hidden.values()) if hidden else 0.0
    if history.observed >= 8 and spread > SPREAD_WARNING:
        slow, fast = min(hidden, key=lambda n: hidden[n]), max(hidden, key=lambda n: hidden[n])
        yield Finding(
            "R11", "warning", f"{slow} and {fast}", history.step, hidden[fast] - hidden[slow], SPREAD_WARNING,
            f"hidden layers move at very different speeds: {fast} by 10^{hidden[fast]:.1f} of its size a step, {slow} "
            f"by 10^{hidden[slow]:.1f}.",
            "Give the layers the same scale (init=kaiming_normal, a normalization), or the parameter groups their own "
            "learning rates.",
        )  # fmt: skip
    slow_steps = history.steps_with_loss or history.step
    if moved and slow_steps >= PATIENCE:
        typical = statistics.median(moved.values())
        if typical < SMALL_WARNING and not improves and history.first_loss > 0.5 * abs(history.reference):
            yield Finding(
                "R10", "critical" if typical < SMALL_CRITICAL else "warning", in_words(list(moved)), history.step,
                typical, SMALL_WARNING,
                f"each step changes the hidden weights by only 10^{typical:.1f} of their size, and the loss hardly "
                "falls; about 10^-3 is healthy.",
                "Multiply optimizer.lr by 3 to 10; look for frozen layers and a large weight decay.",
            )  # fmt: skip


def _frozen(history: History) -> Iterator[Finding]:
    if history.recent and history.recent[-1].lr_share == 0:
        return
    frozen: list[str] = []
    longest = 0
    for name, (since, times) in history.ungraded_since.items():
        steps = history.step - since
        if steps >= FROZEN_WARNING and times >= 3 and name not in history.facts.not_optimized:
            frozen.append(name)
            longest = max(longest, steps)
    fed_with_zeros = _fed_with_zeros(history)
    frozen = [name for name in frozen if name not in fed_with_zeros]
    # A bias before a BatchNorm has a gradient of rounding errors only, which may be nought.
    frozen = [name for name in frozen if name.rpartition(".")[0] not in history.facts.redundant_biases]
    if frozen:
        matrix = any(history.facts.parameters[name].role != "vector" for name in frozen)
        yield Finding(
            "R12", "critical" if longest >= FROZEN_CRITICAL and matrix else "warning", in_words(frozen), history.step,
            longest, FROZEN_WARNING,
            f"{in_words(frozen)}: no gradient for {longest} steps, though it is meant to be trained.",
            "Look for a detach(), a no_grad() or a module that is not called; otherwise set requires_grad=False.",
        )  # fmt: skip
    missing = history.facts.not_optimized
    if missing and history.step >= FROZEN_WARNING:
        yield Finding(
            "R12", "warning", in_words(missing), history.step, len(missing), 0,
            f"{in_words(missing)}: in no optimizer, though the rest of its module is.",
            "Add it to the optimizer's parameters, or set requires_grad=False.",
        )  # fmt: skip


def _fed_with_zeros(history: History) -> set[str]:
    """Return the weights that have no gradient though the bias beside them has: only zeros come in."""
    if not history.recent:
        return set()
    stds = history.recent[-1].of("gradient_std")
    weights = (name for name, std in stds.items() if std == 0 and name.endswith(".weight"))
    return {name for name in weights if stds.get(name.removesuffix("weight") + "bias", 0.0) > 0}
