"""R11: layers that move at very different speeds."""

from __future__ import annotations

import math
from collections.abc import Iterator

from bnlm.doctor.finding import Finding, of_size, power_of_ten
from bnlm.doctor.frozen_rules import without_rate
from bnlm.doctor.history import History
from bnlm.doctor.update_rules import all_learned
from bnlm.doctor.weight_updates import hidden_updates

#: Dex between hidden matrices. Healthy: 0.2 to 0.9.
SPREAD_WARNING = 1.5
#: Dex of that which learning rates of their own may account for.
BY_RATE = 1.0


def _apart_by_rate(history: History, slow: str, fast: str) -> float:
    """Return how many dex of two weights' updates are the ratio of their learning rates, up to 1.

    Where rates grow with depth, three of them or more, as in fine-tuning by Howard & Ruder 2018 (arXiv 1801.06146); one
    layer with a rate of its own is rather a mistake.
    """
    facts = history.facts.parameters
    rates = [one.lr for one in facts.values() if one.role != "vector"]
    if rates != sorted(rates) or len(set(rates)) < 3 or not facts[slow].lr > 0:
        return 0.0
    return min(max(0.0, math.log10(facts[fast].lr / facts[slow].lr)), BY_RATE)


def _of_gates(history: History, names: list[str]) -> set[str]:
    """Return the weights of modules that are gates, as of squeeze and excitation (Hu et al. 2018, arXiv 1709.01507).

    A sigmoid passes a quarter of the gradient at most, and what it multiplies is pooled. None where they are half of
    all or more, as in a recurrent cell.
    """
    kinds = history.recent[-1].kinds
    sigmoids = [n for n, kind in kinds.items() if kind in ("sigmoid", "hardsigmoid") and n not in history.outputs]
    modules = {module for name in sigmoids if (module := name.rpartition(".")[0])}
    gates = {name for name in names if any(name.startswith(f"{module}.") for module in modules)}
    return gates if 2 * len(gates) < len(names) else set()


def imbalance_findings(history: History) -> Iterator[Finding]:
    """Yield R11; nothing before the first steps are over."""
    if not history.warm or history.recent[-1].lr_share < 0.1 or history.observed < 8:
        return
    # What gets no gradient, now or at most steps, and what has a rate of zero, is R12's.
    idle = without_rate(history)
    hidden = {
        name: u
        for name, u in hidden_updates(history).items()
        if name not in history.ungraded_since
        and name not in history.turns
        and name not in idle
        and (u > -math.inf or history.usually_graded(name))
    }
    gates = _of_gates(history, list(hidden))
    hidden = {name: u for name, u in hidden.items() if name not in gates}
    if not hidden:
        return
    slow, fast = min(hidden, key=lambda n: hidden[n]), max(hidden, key=lambda n: hidden[n])
    spread = hidden[fast] - hidden[slow]
    if spread > SPREAD_WARNING + _apart_by_rate(history, slow, fast):
        severity = "note" if all_learned(history) else "warning"
        change = (
            "Give the layers the same scale (init=kaiming_normal, a normalization), or the parameter groups their own "
            "learning rates; where the first layer is the slow one, bring the inputs to mean 0 and variance 1."
        )
        lrs = {name: history.facts.parameters[name].lr for name in (slow, fast)}
        if lrs[slow] > 0 and lrs[fast] > 0 and math.log10(lrs[fast] / lrs[slow]) > spread / 2:
            change = f"Raise the learning rate of the group of {slow}: it is {lrs[slow]:g}, of {fast} {lrs[fast]:g}."
        yield Finding(
            "R11", severity, f"{slow} and {fast}", history.step, spread, SPREAD_WARNING,
            f"layers move at very different speeds: {fast} by {of_size(hidden[fast], 'its')} a step, "
            f"{slow} by {power_of_ten(hidden[slow])}.",
            change,
        )  # fmt: skip
