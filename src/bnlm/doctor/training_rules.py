"""Rules over a window of observed steps: R03, R04, R06 while training, R07, R09 to R11."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from itertools import pairwise

from bnlm.doctor.facts import ParameterFacts
from bnlm.doctor.finding import Finding, in_words, power_of_ten
from bnlm.doctor.frozen_rules import frozen_findings
from bnlm.doctor.history import History
from bnlm.doctor.initial_rules import KEEP_GRADIENTS, SMOOTH, is_output
from bnlm.stats import RELU_LIKE

#: R03: SageMaker's SaturatedActivation and DeepDiagnosis warn at half of a layer.
FLAT_WARNING, FLAT_CRITICAL = 0.5, 0.9
#: R04: ReLU networks with torch's default init sit at 20 to 33 % and train well.
DEAD_WARNING, DEAD_CRITICAL = 0.5, 0.8
#: R03, R04: below this share of its first value the loss shows that the units left are enough: no more than a note.
LEARNED = 0.5
#: R09: log10 of update:data. Healthy hidden layers: -2.2 to -3.1, before a normalization up to -1.5.
LARGE_WARNING, LARGE_CRITICAL, NORM_ALLOWANCE, OUTPUT_ALLOWANCE = -1.8, -1.0, 0.5, 1.0
#: R09: how far above the limit fewer than a quarter of the weights are, to explain why a loss stands still.
CLEARLY = 0.3
#: R10: gradsnitch and others; a rate of 1e-3 of the healthy one reads -5.1 to -5.7.
SMALL_WARNING, SMALL_LATER, SMALL_CRITICAL = -4.0, -3.3, -5.0
#: R09 of a run that ended in nan or in dead layers: of its first step, which is large with AdamW, and of any later one.
RUINOUS_FIRST, RUINOUS = -0.5, -1.2
#: R10 where there is a gradient, and no weight changes at all.
MOVES_NOT = (
    "Look whether optimizer.step() is called, and zero_grad() before backward() rather than between the two; whether "
    "the optimizer's lr is 0; and whether weights are so large that a step is lost in rounding."
)
#: R10 of a schedule that ends early: share of the highest rate, observed steps, begun before and lasting for these
#: shares of the run, share of the reference that is left.
ENDED, ENDED_OBSERVED, ENDED_BEFORE, ENDED_FOR, ENDED_LEFT = 0.02, 4, 0.4, 0.15, 0.3
#: R09 of a run that has hardly learned since its loss rose at the start: share of the reference left, update:data.
SPOILED, SPOILING = 0.75, -1.0
#: R09 of a run that ended in nan: times the loss before, three times; update:data.
EXPLODES, EXPLODING = 3.0, -2.0
#: R10 of a loss that falls, after so many steps or that share of the run: update:data, share of the reference left.
SLOW, SLOW_LEFT, LONG, LONG_SHARE = -3.5, 0.7, 2000, 0.9
#: Losses to wait for before the lack of a fall counts: R06 and R10; R09, at most 0.8 of the run.
PATIENCE, LARGE_PATIENCE = 100, 250
#: R11: dex between hidden matrices. Healthy: 0.2 to 0.9.
SPREAD_WARNING = 1.5


def training_findings(history: History) -> Iterator[Finding]:
    """Yield what is wrong now; nothing before the first steps are over."""
    yield from frozen_findings(history)
    yield from _ruinous_updates(history)
    if not history.warm:
        return
    yield from _saturated(history)
    yield from _dead(history)
    yield from _gradient(history)
    yield from _spikes(history)
    yield from _large_updates(history)
    yield from _uneven_updates(history)
    yield from _small_updates(history)
    yield from _ended_schedule(history)


def _kinds(history: History) -> dict[str, str]:
    return history.recent[-1].kinds if history.recent else {}


def _has_learned(history: History) -> bool:
    return history.improves() and history.recent_loss(50) < LEARNED * history.first_loss


def _saturated(history: History) -> Iterator[Finding]:
    kinds, shares = _kinds(history), history.median("saturation")
    judged = [layer for layer in shares if kinds.get(layer) in SMOOTH]
    if is_output(history, judged, kinds):
        judged.pop()  # sure of itself is what it shall become
    flat = [layer for layer in judged if shares[layer] > FLAT_WARNING]
    flat += [layer for layer in shares if history.facts.clamps.get(layer) and shares[layer] > FLAT_CRITICAL]
    if flat:
        worst = max(shares[layer] for layer in flat)
        severity = "critical" if worst > FLAT_CRITICAL else "note" if _has_learned(history) else "warning"
        yield Finding(
            "R03", severity, in_words(flat), history.step, worst, FLAT_WARNING,
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
        severity = "critical" if worst > DEAD_CRITICAL else "note" if _has_learned(history) else "warning"
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
            KEEP_GRADIENTS,
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


def _judged(history: History) -> tuple[dict[str, float], dict[str, float]]:
    """Return by name each weight's median update:data, and what is granted above the limits of a hidden one."""
    facts = history.facts.parameters
    # What starts at zero moves far beside its own size, rightly.
    judged = {
        name: update
        for name, update in history.median("update_to_data").items()
        if name in facts and facts[name].role != "vector" and facts[name].std > 0
    }
    return judged, {name: _allowance(facts[name]) for name in judged}


def _allowance(parameter: ParameterFacts) -> float:
    return NORM_ALLOWANCE * parameter.feeds_norm + OUTPUT_ALLOWANCE * (parameter.role != "hidden")


def _hidden(history: History) -> dict[str, float]:
    """Return the median update:data of the hidden weights, without those that nothing but zeros comes to.

    Of all weights where none is hidden, as where embeddings are multiplied with each other.
    """
    facts, zeros = history.facts.parameters, history.fed_with_zeros()
    judged = _judged(history)[0]
    some = any(one.role == "hidden" for one in facts.values())
    return {n: u for n, u in judged.items() if (not some or facts[n].role == "hidden") and n not in zeros}


def _without_decay(history: History, updates: dict[str, float]) -> dict[str, float]:
    """Return how much of the updates is not weight decay.

    What is learned is taken to be at right angles to the weights, along which they decay: before a normalization it is.
    """
    facts = history.facts.parameters
    groups = len(history.recent[-1].decays)  # there may have been fewer
    decays = [o.decays for o in history.recent if len(o.decays) == groups]
    typical = [statistics.median(of_group) for of_group in zip(*decays, strict=True)]
    learned = {}
    for name, update in updates.items():
        group = facts[name].group
        decay = typical[group] if group is not None and group < groups else 0.0
        # A tenth of the decay is as little as can be told from it.
        known = decay > 0 and math.isfinite(update)
        squared = max(10 ** (2 * update) - decay**2, (0.1 * decay) ** 2) if known else 0.0
        learned[name] = math.log10(squared) / 2 if known else update
    return learned


def _large_updates(history: History) -> Iterator[Finding]:
    if history.recent[-1].lr_share < 0.1:
        return
    judged, allowed = _judged(history)
    large = [name for name, u in judged.items() if u > LARGE_WARNING + allowed[name]]
    # Small networks that train well reach -1.3: below the critical limit, something has to suffer.
    # AdamW's first steps are large everywhere, and recurrent networks that train well may stay at chance for 200.
    waits = history.steps_with_loss < min(LARGE_PATIENCE, 0.8 * history.total_steps)
    rises = history.steps_above > 0 or (history.has_risen and not history.spikes)
    # Of many weights a few may be a little above; a loss that stands still has other reasons then.
    clearly = 4 * len(large) >= len(judged) or any(judged[n] > LARGE_WARNING + allowed[n] + CLEARLY for n in large)
    suffers = (clearly and not (history.improves() or waits)) or rises
    suffers = suffers or bool(list(_saturated(history)) + list(_dead(history)))
    parameters = history.facts.parameters
    extreme = [n for n in large if parameters[n].role == "hidden" and judged[n] > LARGE_CRITICAL + allowed[n]]
    if extreme or (large and suffers):
        worst = max(large, key=lambda name: judged[name])
        critical = judged[worst] > LARGE_CRITICAL + allowed[worst]
        yield _too_large(history.step, large, judged[worst], "critical" if critical else "warning")


def large_updates_ended(history: History) -> bool:
    """Return whether the updates are of a usual size by now, and the loss has fallen to half of its start."""
    return _has_learned(history) and not [*_large_updates(history), *_ruinous_updates(history)]


def _too_large(step: int, names: list[str], largest: float, severity: str) -> Finding:
    return Finding(
        "R09", severity, in_words(names), step, largest, LARGE_WARNING,
        f"{in_words(names)}: each step changes the weights by up to {power_of_ten(largest)} of their size; about 10^-3 "
        "is healthy.",
        "Divide optimizer.lr by 3 to 10, warm it up, or clip the gradients (trainer.gradient_clip_val=1.0).",
    )  # fmt: skip


def _ruinous_updates(history: History) -> Iterator[Finding]:
    """Yield R09 of a run that ended in nan or in dead layers before a window of observed steps was full.

    Also of one whose first steps made the loss rise, and which has hardly learned since: before a normalization weights
    grow by such steps until the rate is no longer too high for them.
    """
    early = history.early_losses
    rose = bool(early) and max(early) > 1.5 * early[0]
    blown_up = history.non_finite_losses > 0 and rose  # a logarithm of zero does not announce itself
    ruined = blown_up or any(finding.severity == "critical" for finding in _dead(history))
    late = history.steps_with_loss >= LARGE_PATIENCE and bool(history.references)
    spoiled = rose and late and history.recent_loss(50) > SPOILED * abs(history.reference)
    if history.first is None or not (ruined or spoiled):
        return
    # From bad to worse several times in a row: by steps of whatever size.
    explodes = blown_up and sum(after > EXPLODES * before for before, after in pairwise(early)) >= 3
    facts = history.facts.parameters
    large: dict[str, float] = {}
    steps = []
    for observation in [history.first, *history.recent]:
        limit = RUINOUS_FIRST if observation.step == 0 else RUINOUS
        for name, u in observation.of("update_to_data").items():
            judged = name in facts and facts[name].role == "hidden" and facts[name].std > 0
            least = EXPLODING if explodes else limit + _allowance(facts[name]) if ruined else SPOILING
            if judged and least < u < math.inf:
                large[name] = max(u, large.get(name, u))
                steps.append(observation.step)
    if large:
        severity = "critical" if ruined else "warning"
        yield _too_large(steps[0], list(large), max(large.values()), severity)


def _uneven_updates(history: History) -> Iterator[Finding]:
    if history.recent[-1].lr_share < 0.1 or history.observed < 8:
        return
    # What gets no gradient, now or at most steps, is R12's.
    hidden = {
        name: u
        for name, u in _hidden(history).items()
        if name not in history.ungraded_since and (u > -math.inf or history.usually_graded(name))
    }
    spread = max(hidden.values()) - min(hidden.values()) if hidden else 0.0
    if spread > SPREAD_WARNING:
        slow, fast = min(hidden, key=lambda n: hidden[n]), max(hidden, key=lambda n: hidden[n])
        yield Finding(
            "R11", "warning", f"{slow} and {fast}", history.step, spread, SPREAD_WARNING,
            f"hidden layers move at very different speeds: {fast} by {power_of_ten(hidden[fast])} of its size a step, "
            f"{slow} by {power_of_ten(hidden[slow])}.",
            "Give the layers the same scale (init=kaiming_normal, a normalization), or the parameter groups their own "
            "learning rates; where the first layer is the slow one, bring the inputs to mean 0 and variance 1.",
        )  # fmt: skip


def _small_updates(history: History) -> Iterator[Finding]:
    hidden = _without_decay(history, _hidden(history))
    if not hidden or (history.steps_with_loss or history.step) < PATIENCE or history.warms_up:
        return
    typical = statistics.median(hidden.values())
    share = history.recent[-1].lr_share
    # Far below chance there is nothing left to learn; far above the start nothing is to be reached by larger steps.
    chance = abs(history.reference)
    far = history.first_loss <= 0.5 * chance or history.recent_loss(50) > 1.5 * max(history.first_loss, chance)
    limit = SMALL_WARNING if history.steps_with_loss < LARGE_PATIENCE else SMALL_LATER
    if typical < limit and not history.improves() and not far:
        late = f", whose schedule has it at {share:.1g} of its highest," if share < 0.1 else ""
        change = (
            f"Multiply optimizer.lr{late} by 3 to 10; look for frozen layers, a large weight decay, and gradients "
            "clipped to next to nothing."
        )
        graded = history.recent[-1].of("gradient_std")
        if typical == -math.inf and any(graded.get(name) for name in hidden):
            change = MOVES_NOT
        yield Finding(
            "R10", "critical" if typical < SMALL_CRITICAL else "warning", in_words(list(hidden)), history.step,
            typical, limit,
            f"each step changes the hidden weights by only {power_of_ten(typical)} of their size, and the loss hardly "
            "falls; about 10^-3 is healthy.",
            change,
        )  # fmt: skip
    elif typical < SLOW and share >= 0.1 and _far_from_done(history):
        yield Finding(
            "R10", "warning", in_words(list(hidden)), history.step, typical, SLOW,
            f"each step changes the hidden weights by only {power_of_ten(typical)} of their size: after "
            f"{history.steps_with_loss} steps the loss has come from {history.first_loss:.3g} to "
            f"{history.recent_loss(50):.3g}, and still falls; about 10^-3 is healthy.",
            "Multiply optimizer.lr by 3 to 10.",
        )  # fmt: skip


def _far_from_done(history: History) -> bool:
    """Return whether the loss falls, and has most of its way to go after most of the run."""
    if history.steps_with_loss < min(LONG, LONG_SHARE * history.total_steps) or not history.references:
        return False
    return history.recent_loss(50) > SLOW_LEFT * abs(history.reference) and history.falls(history.steps_with_loss // 2)


def _ended_schedule(history: History) -> Iterator[Finding]:
    """Yield R10 where the rate has fallen to next to nothing early in the run, and most is still to be learned."""
    low = 0
    for observation in reversed(history.recent):
        if observation.lr_share > ENDED:
            break
        low += 1
    if low < ENDED_OBSERVED or history.warms_up or not history.references:
        return
    since, left = list(history.recent)[-low].step, history.recent_loss(50) / abs(history.reference)
    early, total = since < ENDED_BEFORE * history.total_steps, history.total_steps
    if early and history.step - since > ENDED_FOR * total and left > ENDED_LEFT:
        yield Finding(
            "R10", "warning", "optimizer", history.step, history.recent[-1].lr_share, ENDED,
            f"the schedule had the learning rate below {ENDED:.0%} of its highest by step {since} of {total:.0f}: "
            f"little is learned since, and the loss is {left:.0%} of what knowing nothing costs.",
            "Stretch the schedule over the run; one meant for epochs is stepped each step with interval=step.",
        )  # fmt: skip


def no_step(batches: int) -> Finding:
    """Return R10 of a run in which no optimizer has taken a step."""
    return Finding(
        "R10", "critical", "optimizer", 0, -math.inf, SMALL_WARNING,
        f"no optimizer step was taken in {batches} batches, so nothing has changed.",
        "Return the loss from training_step; in manual optimization call step() of what self.optimizers() returns.",
    )  # fmt: skip
