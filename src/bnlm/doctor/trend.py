"""Whether losses fall or rise, beyond their noise."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import numpy as np


def is_below(start: Sequence[float], last: Sequence[float]) -> bool:
    """Return whether the mean of the last losses is below that of a start, by a tenth of it and 3 standard errors."""
    noise = float(np.std(last, ddof=1))  # statistics.stdev counts in fractions
    first, recent = statistics.fmean(start), statistics.fmean(last)
    error = noise * math.sqrt(1 / len(start) + 1 / len(last))
    return first - recent > max(0.1 * abs(first), 3 * error)


def rises(losses: Sequence[float], t: float = 4.0) -> bool:
    """Return whether losses rise: by 2 % along their line, beyond their noise (t-statistic above `t`)."""
    return falls(losses[::-1], t)


def falls(losses: Sequence[float], t: float = 4.0) -> bool:
    """Return whether losses fall: by 2 % along their line, beyond their noise (t-statistic below `-t`)."""
    last = np.array(losses)
    if len(last) < 10 or last.min() == last.max():
        return False
    times = np.arange(len(last)) - (len(last) - 1) / 2
    around = last - last.mean()
    slope = float(times @ around / (times @ times))
    r2 = slope * slope * float(times @ times / (around @ around))
    return -slope * len(last) > 0.02 * abs(float(last.mean())) and r2 * (len(last) - 2) > t * t * (1 - r2)
