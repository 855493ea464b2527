"""What the doctor says: one finding a rule."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

#: Rule id -> name.
RULES = {
    "R01": "initial_loss",
    "R02": "overconfident_output",
    "R03": "saturated_activation",
    "R04": "dead_units",
    "R05": "activation_scale_drift",
    "R06": "vanishing_gradient / exploding_gradient",
    "R07": "gradient_spikes",
    "R08": "non_finite",
    "R09": "updates_too_large",
    "R10": "updates_too_small",
    "R11": "update_imbalance",
    "R12": "frozen_parameter",
    "R13": "loss_not_decreasing",
    "R14": "loss_diverging",
    "R15": "overfitting",
    "R16": "batch_too_small_for_batchnorm",
    "R17": "batchnorm_statistics_mismatch",
    "R18": "batchnorm_momentum_noise",
    "R19": "redundant_bias",
    "R20": "symmetric_init",
}
SEVERITIES = ("note", "warning", "critical")
#: Of update:data, in messages.
HEALTHY = "10^-3 to 10^-2 is healthy"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        rule: Id of the rule, R01 to R20.
        severity: note, warning or critical.
        where: Layers or parameters, in words.
        step: Optimizer step at which it was first seen.
        value: The statistic.
        threshold: What it was compared with.
        message: What is wrong, with the numbers.
        suggestion: What to change.
        caused_by: Id of the rule whose finding explains this one, or None.
    """

    rule: str
    severity: str
    where: str
    step: int
    value: float
    threshold: float
    message: str
    suggestion: str
    caused_by: str | None = None

    @property
    def name(self) -> str:
        """The rule's name; of R06 the one that applies."""
        if self.rule == "R06":
            return "vanishing_gradient" if self.value < 1 else "exploding_gradient"
        return RULES[self.rule]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, and the rule's name, as JSON has them: a number that is not finite is its text."""
        fields = {key: _jsonable(value) for key, value in asdict(self).items()}
        return {"rule": self.rule, "name": self.name, **fields}


def in_words(names: list[str], limit: int = 4) -> str:
    """Return names as a reader would list them: `a`, `a and b`, `a, b and c`, `a to z (9 layers)`."""
    if len(names) == 1:
        return names[0]
    if len(names) <= limit:
        return f"{', '.join(names[:-1])} and {names[-1]}"
    return f"{names[0]} to {names[-1]} ({len(names)} in all)"


def percent(shares: list[float]) -> str:
    """Return the largest of several shares as `up to 84%`, a single one as `84%`."""
    return f"{'up to ' * (len(shares) > 1)}{max(shares):.0%}"


def power_of_ten(log10: float) -> str:
    """Return `10^-3.0`, and `0` for what does not move at all."""
    return f"10^{log10:.1f}" if log10 > -math.inf else "0"


def of_size(log10: float, whose: str = "their") -> str:
    """Return `10^-3.0 of their size`, and `1.6 times their size` of what is about as much or more."""
    if log10 < -0.3:
        return f"{power_of_ten(log10)} of {whose} size"
    times = f"{10**log10:.2g}" if log10 < 2 else f"{10**log10:,.0f}" if log10 < 6 else power_of_ten(log10)
    return f"as much as {whose} size" if times == "1" else f"{times} times {whose} size"


def _jsonable(value: Any) -> Any:
    if isinstance(value, float) and not (-float("inf") < value < float("inf")):
        return str(value)
    return value
