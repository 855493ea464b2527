"""What a network costs that has learned how frequent each class is, and nothing else."""

from __future__ import annotations

import math

import numpy as np

#: Targets for each class, on average, that tell how frequent the classes are; examples that tell it of binary ones.
PER_CLASS, BINARY_EXAMPLES = 20, 200


def loss_of_frequencies(counts: np.ndarray, binary: bool) -> float:
    """Return the cross entropy of targets with their own frequencies; nan where too few are known.

    With the correction of G. Miller 1955, "Note on the bias of information estimates".

    Args:
        counts: Of each class; of binary targets how many are 1 for each place of an output, then of how many examples.
        binary: Whether they are that.
    """
    if binary:
        total = counts[-1] if len(counts) > 1 else 0
        if total < BINARY_EXAMPLES:
            return math.nan
        ones = counts[:-1] / total
        shares = np.stack([ones, 1 - ones])
        logs = np.log(np.where(shares > 0, shares, 1))
        return float(-(shares * logs).sum(axis=0).mean() + 1 / (2 * total))
    total = counts.sum()
    if not total or total < PER_CLASS * len(counts):
        return math.nan
    shares = counts[counts > 0] / total
    return float(-(shares * np.log(shares)).sum() + (len(shares) - 1) / (2 * total))
