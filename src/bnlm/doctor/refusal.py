"""What the error that ended a run tells: R08, R16."""

from __future__ import annotations

import re

from bnlm.doctor.batch_norm_rules import too_few
from bnlm.doctor.finding import Finding


def refusal(error: BaseException, step: int) -> Finding | None:
    """Return R16 where torch's BatchNorm has refused a batch, R08 where somebody refuses nan; None of another error."""
    if not isinstance(error, ValueError | RuntimeError | ArithmeticError):
        return None
    if "more than 1 value per channel" in str(error):
        return too_few("a BatchNorm", 1, step)
    if re.search(r"\bnan\b", str(error), re.IGNORECASE) is None:
        return None
    first = str(error).splitlines()[0]
    return Finding(
        "R08", "critical", "a value that was refused", step, float("nan"), 0,
        f"the run ended with {type(error).__name__}, which speaks of nan: {first[:200]}",
        "Look for nan in the batch before this one (its inputs, its targets), then for a logarithm, root or division "
        "outside its domain; lower optimizer.lr and clip the gradients if the loss was large before.",
    )  # fmt: skip
