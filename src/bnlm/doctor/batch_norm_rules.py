"""Rules over BatchNorm: R16, R18, R19 at the start, R17 at each validation."""

from __future__ import annotations

import math
from collections.abc import Iterator

from bnlm.doctor.finding import Finding, in_words
from bnlm.doctor.history import History
from bnlm.doctor.observation import StatisticsGap

#: R16: values per channel that a batch's statistics are taken over. Wu & He 2018, arXiv 1803.08494; 8 and 16 are ours.
VALUES_WARNING, VALUES_NOTE = 8, 16
#: R18: standard error of the running mean, in standard deviations: sqrt(m / ((2 - m) n)).
NOISE_WARNING, NOISE_CRITICAL = 0.10, 0.25
#: R17: median |log variance ratio|, mean gap in standard deviations, share of the start left in the running statistics.
LOG_VARIANCE, MEAN_GAP, RESIDUE = 0.3, 0.2, 0.05
#: R17 of statistics whose start has faded: times these limits.
FADED_ALLOWANCE = 3.0
#: The same of a note, and where the validation loss is that many times the training loss, and above it by this share of
#: the reference.
COSTLY_ALLOWANCE, FAR_ABOVE, FAR_ABOVE_OF_REFERENCE = 2.0, 1.5, 0.05
#: R17 of a single validation whose statistics have nothing to do with the running ones: times the limits.
FOREIGN_ALLOWANCE = 10.0
#: R17 of statistics that no batch has come to: what to change.
NEVER = (
    "Look for an eval() or a freeze before training_step: the BatchNorm has taken in no batch, and so does not "
    "normalize; call train() on it."
)
#: R17 of one that is written by hand: what to change.
BY_HAND = (
    "It is written by hand: look whether its forward, in training and only then, moves both statistics in place by a "
    "small share (0.1) towards each batch's, and normalizes with them in eval; or use bnlm.normalization.BatchNorm."
)
#: R17 of statistics that few batches have come to: how the advice begins; in fewer than one of so many steps.
NO_MORE, FEW_UPDATES = "Look for an eval() that stays, as after a validation", 1.5
#: R17: logarithm of the factor above which it is no longer told.
MANY = math.log(1000)
#: R17: what the validation loss is above the training loss, and at least of the reference, where it is critical.
LOSS_GAP, LOSS_GAP_OF_REFERENCE = 0.1, 0.02


def batch_norm_findings(history: History) -> Iterator[Finding]:
    """Yield what is wrong with batches and statistics; of batches only at step 0."""
    if history.observed == 1 and history.first is not None and history.first.step == 0:
        yield from _batches(history)
        yield from _redundant_biases(history)
    yield from _untouched(history)
    yield from _mismatch(history)


def too_few(where: str, values: int, step: int) -> Finding:
    """Return R16 of so many values per channel."""
    severity = "critical" if values == 1 else "warning" if values < VALUES_WARNING else "note"
    return Finding(
        "R16", severity, where, step, values, VALUES_WARNING,
        f"{where}: the batch's mean and variance are taken over {values} value{'s' * (values > 1)} per channel; "
        "gradient accumulation does not add to them.",
        "Use a larger batch (data.batch_size; drop_last=True if only the last one is small), or a normalization that "
        "needs none: normalization=layer, group or batch_renorm.",
    )  # fmt: skip


def _batches(history: History) -> Iterator[Finding]:
    assert history.first is not None
    values = history.first.heard.values_per_channel
    if not values:
        return
    fewest = min(values.values())
    layers = [layer for layer, count in values.items() if count == fewest]
    if fewest < VALUES_NOTE:
        yield too_few(in_words(layers), fewest, 0)
    noise = {
        layer: math.sqrt(momentum / ((2 - momentum) * values[layer]))
        for layer, momentum in history.facts.batch_norms.items()
        if momentum and layer in values
    }
    if noise and max(noise.values()) > NOISE_WARNING:
        worst = max(noise, key=lambda layer: noise[layer])
        momentum = history.facts.batch_norms[worst]
        yield Finding(
            "R18", "critical" if noise[worst] > NOISE_CRITICAL else "warning", worst, 0, noise[worst], NOISE_WARNING,
            f"{worst}: with momentum {momentum:g} and {values[worst]} values per channel, the running mean that eval "
            f"uses is off by about {noise[worst]:.2f} standard deviations.",
            "Lower the momentum to a tenth (normalization.momentum), or average all batches (null); or take exact "
            "statistics after training with bnlm.normalization.calibrate.",
        )  # fmt: skip


def _redundant_biases(history: History) -> Iterator[Finding]:
    layers = history.facts.redundant_biases
    if layers:
        after = " or ".join(sorted(set(layers.values())))
        yield Finding(
            "R19", "note", in_words(list(layers)), 0, len(layers), 0,
            f"{in_words(list(layers))}: the {after} after it subtracts any constant, so the bias has no effect and no "
            "gradient.",
            "Build the layer with bias=False.",
        )  # fmt: skip


def _untouched(history: History) -> Iterator[Finding]:
    """Yield R17 of what has a gradient and so is in use, and has taken in no batch since it was made."""
    graded = history.recent[-1].of("gradient_std") if history.recent else {}
    layers = [layer for layer in history.untouched or () if graded.get(f"{layer}.weight", 0.0) > 0]
    if layers:
        yield Finding(
            "R17", "warning", in_words(layers), history.step, 0, 1,
            f"{in_words(layers)}: in eval mode while it is trained: it has taken in no batch in {history.step} steps, "
            "and divides by the 1 that its running variance began with.",
            NEVER,
        )  # fmt: skip


def _mismatch(history: History) -> Iterator[Finding]:
    if not history.gaps:
        return
    gap = history.gaps[-1]
    residue = gap.left
    # Early in training the statistics move as fast as the network: held against them is only a start that lingers, in
    # the second half of the run or for longer than that; otherwise a large gap, in several validations in a row.
    lingers = residue > RESIDUE and (
        2 * gap.step >= history.total_steps or gap.updates == 0 or gap.residue(history.total_steps / 2) > RESIDUE
    )
    validation, train = history.validations[-1] if history.validations else (0.0, 0.0)
    far = validation > FAR_ABOVE * train > 0 and validation - train > FAR_ABOVE_OF_REFERENCE * history.losses.scale
    faded_allowance = COSTLY_ALLOWANCE if far else FADED_ALLOWANCE
    judged, allowance = ([gap], 1.0) if lingers else (list(history.gaps), faded_allowance)
    apart = all(_beyond(each, allowance) for each in judged)
    faded = len(judged) == history.gaps.maxlen and all(each.left <= RESIDUE for each in judged)
    foreign = residue <= RESIDUE and _beyond(gap, FOREIGN_ALLOWANCE) and 2 * gap.step >= history.total_steps
    remark = faded and not lingers and all(_beyond(each, COSTLY_ALLOWANCE) for each in judged)
    certain = (apart and (lingers or faded)) or foreign
    if certain or (remark and 2 * gap.step >= history.total_steps):
        least = LOSS_GAP_OF_REFERENCE * history.losses.scale
        costs = validation > (1 + LOSS_GAP) * train and validation - train > least
        yield Finding(
            "R17", "note" if not certain else "critical" if costs else "warning", gap.layer, gap.step,
            max(gap.log_variance / LOG_VARIANCE, gap.mean / MEAN_GAP), FOREIGN_ALLOWANCE if foreign else allowance,
            f"{gap.layer}: the running statistics that eval uses are not those of the data: variances differ by a "
            f"factor of {_factor(gap.log_variance)}, means by {_deviations(gap.mean)} standard deviations"
            + ("." if gap.by_hand else f"; {residue:.0%} of their start is left in them."),
            _change(gap),
        )  # fmt: skip


def _change(gap: StatisticsGap) -> str:
    if gap.by_hand:
        return BY_HAND
    if gap.updates == 0:
        return NEVER
    if gap.updates is not None and FEW_UPDATES * gap.updates < gap.step:
        taken = f"{gap.updates} batch{'es' * (gap.updates != 1)}"
        return f"{NO_MORE}: of {gap.step} steps the BatchNorm has taken in {taken}; call train() on it."
    if gap.left <= RESIDUE:
        return (
            "Look whether validation prepares its inputs as training does, and for batches out of scale; if all is as "
            "it should be, take exact statistics with bnlm.normalization.calibrate."
        )
    return "Train longer, raise normalization.momentum, or take exact statistics with bnlm.normalization.calibrate."


def _beyond(gap: StatisticsGap, allowance: float) -> bool:
    """Return whether a gap is larger than so many times the limits."""
    return gap.log_variance > LOG_VARIANCE * allowance or gap.mean > MEAN_GAP * allowance


def _deviations(gap: float) -> str:
    return f"{gap:.2f}" if gap < 100 else "more than 100"


def _factor(log: float) -> str:
    """Return the factor in words: beside a variance of nothing every other is many times as large."""
    return f"{math.exp(log):.2f}" if log < MANY else f"more than {math.exp(MANY):.0f}"
