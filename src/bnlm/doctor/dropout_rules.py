"""R13 of dropout that leaves next to nothing."""

from __future__ import annotations

from collections.abc import Iterator

from bnlm.doctor.finding import Finding
from bnlm.doctor.history import History

#: Srivastava et al. 2014 (JMLR 15) find 0.5 to be about the best of hidden units, and errors that rise above 0.8.
HEAVY_DROPOUT = 0.9
#: Share of the reference that is left late in the run; what to change.
LEFT_BY_DROPOUT = 0.3
LESS_DROPOUT = "Lower the p of the dropout to 0.5 or less: 0.1 to 0.3 is usual."


def heavy_dropouts(history: History) -> dict[str, float]:
    """Return the p of those that leave a tenth or less, by module path."""
    return {path: p for path, p in history.dropouts.items() if p >= HEAVY_DROPOUT}


def dropout_findings(history: History) -> Iterator[Finding]:
    """Yield R13 where hardly any unit is left in a step, and little has been learned late in the run."""
    dropouts = heavy_dropouts(history)
    recent, chance = history.losses.recent(100), abs(history.reference.loss)
    if not dropouts or not history.is_late or not chance > 0:
        return
    left = recent / chance
    if left > LEFT_BY_DROPOUT:
        worst = max(dropouts, key=lambda path: dropouts[path])
        than = "what knowing nothing costs" if history.reference.is_known else "the first loss"
        yield Finding(
            "R13", "warning", worst, history.step, recent, LEFT_BY_DROPOUT * chance,
            f"{worst} leaves {1 - dropouts[worst]:.0%} of its inputs in a step (p={dropouts[worst]:g}); after "
            f"{history.losses.steps} steps {left:.0%} of {than} is left.",
            LESS_DROPOUT,
        )  # fmt: skip
