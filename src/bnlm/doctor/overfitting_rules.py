"""R15: a validation loss that does not follow the training loss."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from itertools import pairwise

from bnlm.doctor.finding import Finding
from bnlm.doctor.history import History
from bnlm.doctor.standstill_rules import STUCK

#: How far the validation loss is above the training loss, and stays above its best; the latter also by this share
#: of the reference, because losses near zero differ by factors in healthy runs.
GAP, RISEN, RISEN_OF_REFERENCE = 0.1, 0.03, 0.04
#: The last where the training loss is below this share of it, and its best no smaller than this share of the reference.
RISEN_OF_REFERENCE_FAR, FAR_BELOW, WORTH = 0.02, 0.7, 0.1
#: Of what is known by heart: share of its best that is rest; training loss over validation loss, and share of the
#: reference that the one is above the other, which may be less where more of the first is learned; share of the
#: reference that is left of the first at most.
AT_REST, BY_HEART, FAR_APART, LEARNED = 0.99, (0.25, 0.1), (0.3, 0.09), 0.5
#: Training loss over validation loss in a first epoch, above which nothing is held against the one.
NEW_ALIKE = 0.5
#: How the training loss is told of then.
BUT_LEARNED = "while the training loss is {:.3g}: the examples have been learned by heart"
#: Times the mean of its examples that the loss is, to be their sum.
SUMMED = 4.0
#: Of what is of no use to another set: training loss over validation loss, the same of a regression, whose targets
#: spread more in one set than in another, and validation loss over chance.
OF_NO_USE, OF_NO_USE_REGRESSION, WORSE = 0.97, 0.9, 1.02


def overfitting_findings(history: History) -> Iterator[Finding]:
    """Yield what the validations tell; nothing before the third.

    In a first epoch little, for what is new costs as much in training as it does in validation.
    """
    if len(history.validations) < 3:
        return
    losses = [loss for loss, _ in history.validations]
    best, (loss, train) = min(losses), history.validations[-1]
    if train > history.losses.first:
        return  # nothing has been learned, by heart or otherwise
    if not history.repeats and train > NEW_ALIKE * loss:
        return
    # Few examples to validate on, or a high rate, make it jump: held against it is what lasts, and exceeds its jumps.
    jumps = statistics.median(abs(after - before) for before, after in pairwise(losses))
    few = min(3, len(losses) - 1)
    last = min(losses[-few:])
    reference, share = abs(history.reference.loss), RISEN_OF_REFERENCE
    if 0 < train < FAR_BELOW * loss and best > WORTH * reference:
        since = losses[losses.index(best) :]
        if len(since) > 3 and all(before < after for before, after in pairwise(since)):
            last = loss  # what rises each time counts as high as it is in the end
        share = RISEN_OF_REFERENCE_FAR
    risen = last - best > max(RISEN * abs(best), share * reference, jumps)
    then = history.validations[losses.index(best)][1]
    severity = "warning"
    rises_alone = train < then + GAP * abs(then)
    if risen and rises_alone and loss - train > GAP * abs(train) > 0:
        how = f"the validation loss has risen from {best:.3g} to {loss:.3g}, while the training loss is {train:.3g}."
    elif history.reference.weight > SUMMED:
        return  # over batches of another size
    elif (by_heart := _by_heart(history, losses, train)) and min(losses[-few:]) > AT_REST * min(losses[:-few]):
        how = f"the validation loss is {loss:.3g} and no longer falls, {BUT_LEARNED.format(train)}."
    elif history.repeats and _of_no_use(history, losses, train):
        chance = history.reference.of_a_constant
        how = (
            f"the validation loss is {loss:.3g}, no better than knowing nothing ({chance:.3g}), "
            f"while the training loss is {train:.3g}: what is learned holds for the training examples alone."
        )
    elif by_heart:
        severity, how = "note", f"the validation loss is {loss:.3g}, {BUT_LEARNED.format(train)}."
    else:
        return
    change = (
        "Stop at the best validation loss (checkpoints/best.ckpt), add data, dropout or weight decay, or use a smaller "
        "network."
    )
    if not history.repeats:
        change = f"Look whether the same examples come back within the epoch, and both sets are of one kind. {change}"
    known = history.reference
    if known.is_known and not known.has_other_terms and best > STUCK * known.of_a_constant:
        change = f"Look at the labels, and whether both sets are prepared alike: it never was below chance. {change}"
    yield Finding(
        "R15", severity, "validation loss", history.step, (loss - train) / abs(train), GAP, how,
        change,
    )  # fmt: skip


def _by_heart(history: History, losses: list[float], train: float) -> bool:
    """Return whether the validation loss is far above the training loss, and has some way to go."""
    loss, reference = losses[-1], abs(history.reference.loss)
    return 0 < train < LEARNED * reference and any(
        train < share * loss and loss - train > apart * reference
        for share, apart in zip(BY_HEART, FAR_APART, strict=True)
    )


def _of_no_use(history: History, losses: list[float], train: float) -> bool:
    """Return whether the validation loss is never better than knowing nothing while the training loss falls."""
    if not history.reference.is_known or history.reference.has_other_terms:
        return False
    chance = history.reference.of_a_constant
    never_better = min(losses) > STUCK * chance and losses[-1] > (STUCK if history.is_late else WORSE) * chance
    output = history.reference.output
    share = OF_NO_USE_REGRESSION if output is not None and output.kind == "regression" else OF_NO_USE
    return never_better and 0 < train < share * min(chance, *losses[-3:])
