"""Which finding explains which, and what is named first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from bnlm.doctor.batch_norm_rules import NEVER
from bnlm.doctor.dropout_rules import LESS_DROPOUT
from bnlm.doctor.finding import SEVERITIES, Finding
from bnlm.doctor.loss_rules import DIFFERENT, SCHEDULE, SIGN, TOO
from bnlm.doctor.optimizer_rules import ZERO_GRAD
from bnlm.doctor.output_rules import BRING
from bnlm.doctor.small_update_rules import CLIP_LESS, SCHEDULES, SMALL_WARNING
from bnlm.doctor.spike_rules import BATCHES
from bnlm.doctor.standstill_rules import CERTAIN_CAUSES, OVERFIT, ZEROS
from bnlm.doctor.unreachable_rules import SEVERAL_OUTPUTS
from bnlm.doctor.weight_decay import LOWER_DECAY, LOWER_RATE
from bnlm.doctor.weight_scale_rules import DRAW_LARGER
from bnlm.doctor.weight_updates import LARGE_WARNING

#: Rule -> rules that explain it, the likeliest first. A rate that is too high saturates, kills and diverges.
CAUSES: dict[str, tuple[str, ...]] = {
    "R01": ("R20", "R05", "R02"),
    "R02": ("R20", "R05"),
    "R03": ("R08", "R20", "R01", "R09", "R14"),
    "R04": ("R20", "R16", "R05", "R09", "R14"),
    "R05": ("R20", "R04"),
    "R06": ("R20", "R16", "R04", "R05", "R03", "R09", "R10"),
    "R07": ("R09", "R11", "R16", "R14"),
    "R08": ("R16", "R09", "R05", "R06", "R14"),
    "R09": ("R05", "R02", "R01", "R16", "R07", "R14"),
    "R10": ("R20", "R12", "R04", "R05", "R06", "R03", "R09"),
    "R11": ("R20", "R12", "R05", "R06", "R03", "R07", "R16"),
    "R12": ("R20", "R08", "R04", "R09", "R14", "R03"),
    "R13": ("R08", "R20", "R12", "R16", "R09", "R10", "R05", "R06", "R03", "R04", "R14", "R11", "R02", "R01", "R07"),
    "R14": ("R08", "R09", "R11", "R02", "R07", "R16"),
    "R15": ("R17", "R18", "R16", "R09", "R14"),
    "R17": ("R16", "R18", "R14", "R09"),
    "R18": ("R16",),
}
#: Of two findings that are as severe and as early, the one whose rule is first here is named first.
ORDER = "R20 R16 R18 R02 R01 R04 R05 R03 R06 R09 R12 R11 R10 R17 R07 R08 R14 R13 R15 R19".split()

#: These take a number of observed steps to be seen: until this step they may explain what was seen before them.
SEEN_LATE, LATE = ("R04", "R11", "R12"), 100
#: Cause and consequence, where healthy networks have a mild form of the first too: it has to be critical.
MILD = {
    ("R06", "R10"), ("R06", "R11"), ("R06", "R13"), ("R04", "R13"), ("R04", "R10"), ("R11", "R13"), ("R09", "R15"),
    ("R04", "R12"), ("R04", "R06"),
    ("R12", "R10"), ("R12", "R11"), ("R12", "R13"),
}  # fmt: skip
#: log10 of update:data of steps that explain a loss which stands still: where all is learned, they shrink too.
TOO_SMALL_TO_LEARN = SMALL_WARNING
#: Loss over R13's limit, 0.98 of chance, that steps which are too large keep a network at.
JITTERS = 1.03
#: Share of flat outputs beyond which hardly one is left that passes a gradient.
FLAT_ALL_OVER = 0.99
#: R17: times its limits by which running statistics are off that do not normalize at all; what comes of that.
FAR_OFF, WITHOUT_NORM = 10.0, ("R01", "R02", "R03", "R04", "R05", "R06", "R10", "R12", "R13")
#: R06: share of the gradient that comes back to the first layer, so little that Adam's eps (1e-8) is more.
FADED = 1e-6
#: What single batches, a wrong sign or a scale bring about in weights, and neither decay nor gradients that are left.
OF_STEPS = ("R14", "R07", "R05", "R02", "R01")
OF_SETTINGS = (LOWER_DECAY, LOWER_RATE, ZERO_GRAD)
#: Values per channel with which a BatchNorm alone may keep a network from learning.
FEW_VALUES = 4


def explained(found: Mapping[str, Finding], rescales: bool) -> list[Finding]:
    """Return findings with their causes, these before their consequences; first what brings about the most severe.

    Args:
        found: By rule.
        rescales: See `Facts`.
    """
    linked = {rule: replace(f, caused_by=_cause_of(f, found, rescales)) for rule, f in found.items()}
    for finding in sorted(linked.values(), key=_urgency):
        if _explains_itself(finding, linked):
            linked[finding.rule] = replace(finding, caused_by=None)
    # A higher rate, a look for detach() or at the data, another init or a smaller network would be no remedy then.
    for rule in ("R06", "R10", "R11", "R12", "R13", "R15", "R17"):
        follows = linked.get(rule)
        if follows is not None and follows.caused_by is not None:
            if rule == "R13" and not follows.suggestion.startswith(OVERFIT):
                continue  # it says more
            cause = linked[follows.caused_by]
            linked[rule] = replace(follows, suggestion=f"Mend {cause.rule} {cause.name} first.")
    rise = linked.get("R14")
    if rise is not None and rise.caused_by is not None:  # it is known why it never fell
        signs = rise.suggestion.startswith(SIGN)
        mend = f"Mend {rise.caused_by} {linked[rise.caused_by].name} first."
        linked["R14"] = replace(rise, suggestion=mend if signs else rise.suggestion.partition(TOO)[0])
    ordered: list[Finding] = []
    by_cause: dict[str | None, list[Finding]] = {}
    for finding in linked.values():
        by_cause.setdefault(finding.caused_by, []).append(finding)

    def worst(finding: Finding) -> int:
        """Return how severe the worst of what a finding brings about is, or it itself."""
        return max(SEVERITIES.index(finding.severity), *map(worst, by_cause.get(finding.rule, [])), 0)

    def add(cause: str | None) -> None:
        for finding in sorted(by_cause.get(cause, []), key=lambda finding: (-worst(finding), *_urgency(finding))):
            ordered.append(finding)
            add(finding.rule)

    add(None)
    return ordered


def _cause_of(finding: Finding, found: Mapping[str, Finding], rescales: bool) -> str | None:
    stuck, rise = found.get("R13"), found.get("R14")
    diverged = stuck is not None and rise is not None and rise.severity == "critical" and rise.step < stuck.step
    if stuck is not None and stuck.severity != "note" and stuck.suggestion.startswith(CERTAIN_CAUSES) and not diverged:
        if finding.rule == "R13":
            return None
        if finding.rule in ("R04", "R06", "R10", "R11") and finding.step > 0:
            return "R13"
        if finding.rule in ("R04", "R06", "R12") and stuck.suggestion.startswith(ZEROS):
            return "R13"
        if finding.rule in ("R01", "R02", "R12") and stuck.suggestion.startswith(SEVERAL_OUTPUTS):
            return "R13"
        if finding.rule in ("R01", "R02", "R05", "R06") and stuck.suggestion.startswith(LESS_DROPOUT):
            return "R13"  # which makes what it leaves ten times as large, and its gradient too
    gap = found.get("R17")
    if gap is not None and gap.suggestion == NEVER and gap.value > FAR_OFF and finding.rule in WITHOUT_NORM:
        return "R17"
    slow = found.get("R10")
    held_back = slow is not None and slow.severity != "note" and slow.suggestion.startswith((CLIP_LESS, *SCHEDULES))
    if held_back and finding.rule in ("R06", "R13") and finding.step > 0:
        return "R10"
    if held_back and finding.rule == "R10":  # whatever the gradients are, nothing is left of them
        clips = found.get("R07")
        of_clipping = clips is not None and clips.severity != "note" and clips.suggestion.startswith(CLIP_LESS)
        return "R07" if of_clipping and finding.suggestion.startswith(CLIP_LESS) else None
    for rule in CAUSES.get(finding.rule, ()):
        cause = found.get(rule)
        if cause is None or cause.severity == "note":
            continue
        if finding.rule == "R09" and rule in ("R05", "R02", "R01") and rescales:
            continue  # a scale that is wrong makes no step larger then
        faded = rule == "R06" and cause.value < FADED
        grown = rule == "R05" and cause.value > 1
        if finding.rule == "R10" and rule in ("R05", "R06") and rescales and not (grown or faded):
            continue  # nor smaller, unless weights are large, or gradients below what Adam divides by
        if _explains(cause, finding, rescales):
            return rule
    return None


def _explains(cause: Finding, finding: Finding, rescales: bool) -> bool:
    """Whether the one may have brought about the other, by the order in time and by what each needs to be seen."""
    pair = cause.rule, finding.rule
    if finding.rule == "R09" and finding.suggestion.startswith(OF_SETTINGS) and cause.rule in OF_STEPS:
        return False
    if cause.rule == "R09" and cause.suggestion.startswith(OF_SETTINGS):
        return finding.step > 0  # whatever else is seen, weights that are taken away keep nothing
    if "R05" in pair and (cause if cause.rule == "R05" else finding).suggestion == DRAW_LARGER:
        # Hardly anything passes weights that started small: no unit responds, no gradient comes back, no step is usual.
        return cause.rule == "R05" and finding.rule not in ("R09", "R12")
    if "R07" in pair and ("R09" in pair or "R11" in pair):
        # What single batches do is seen in the steps after them; steps that are too large bring about other spikes.
        spikes = cause if cause.rule == "R07" else finding
        single = spikes.suggestion.startswith(BATCHES)
        if spikes is cause:
            return single and (finding.step > 0 or finding.severity != "critical")
        return not single and (cause.rule != "R11" or cause.step <= max(finding.step, LATE))
    if finding.rule == "R08" and cause.rule in ("R05", "R06") and cause.value < 1:
        return False  # what fades does not overflow
    if finding.step == 0 and (cause.step > 0 or cause.rule == "R09"):
        return False  # what was so before the first step was not brought about by the steps
    if "R14" in pair and ("R09" in pair or "R07" in pair):
        # A loss that goes the wrong way makes weights large. Spikes are of what diverges, unless of single batches.
        rise = cause if cause.rule == "R14" else finding
        other = finding if rise is cause else cause
        astray = rise.suggestion.startswith(SIGN) if other.rule == "R09" else not other.suggestion.startswith(BATCHES)
        return (astray or rise.suggestion.startswith((DIFFERENT, SCHEDULE))) == (rise is cause)
    if "R14" in pair and "R08" in pair:  # what goes the wrong way ends in nan, seen first or not
        rise = cause if cause.rule == "R14" else finding
        if rise.suggestion.startswith(SIGN):
            return rise is cause
    if pair in (("R09", "R12"), ("R14", "R12")):
        # A high rate kills what learned before; what has had no gradient since the start is another matter.
        return finding.value < finding.step and cause.step <= max(finding.step, LATE)
    if pair == ("R08", "R12"):
        return cause.step <= finding.step
    if pair == ("R03", "R12"):  # only what is flat everywhere passes no gradient at all
        return cause.value > FLAT_ALL_OVER and cause.step <= max(finding.step, LATE) and finding.value < finding.step
    if pair in MILD and cause.severity != "critical":
        return False
    if pair == ("R07", "R13"):  # single batches undo what the others bring
        return cause.suggestion.startswith(BATCHES) and finding.step > 0
    if pair == ("R08", "R03"):  # what has overflowed before any step is flat, and no scale of weights makes it so
        return cause.step == 0 and finding.step == 0
    if pair == ("R09", "R10"):  # steps that were too large leave a network where hardly any gradient comes
        return cause.severity == "critical" and cause.step < finding.step
    if pair == ("R10", "R13") and cause.value > TOO_SMALL_TO_LEARN:
        return False  # where there is nothing to be learned, steps become small too
    # Some fading is usual, and held against a network only where its loss stays: small steps are enough for that.
    if pair == ("R10", "R06"):
        if finding.value < FADED:
            return False
        return finding.severity == "warning" or (rescales and cause.value < SMALL_WARNING)
    if finding.rule == "R06" and cause.rule in ("R03", "R09") and cause.step > finding.step:
        return False  # a gradient that had faded before is why the loss stood still
    if cause.rule in SEEN_LATE:
        return cause.step <= max(finding.step, LATE)
    if cause.rule == "R14" and finding.rule in ("R03", "R04", "R08"):
        if finding.rule == "R03" and cause.suggestion.startswith(SIGN):
            return True
        return cause.step < finding.step  # what diverges dies in the end; what dies may diverge, too
    if "R08" in pair:
        return cause.step <= finding.step
    if finding.rule == "R17" and cause.rule in ("R09", "R14") and cause.severity != "critical":
        return cause.rule == "R09" and cause.value > 0  # a step larger than the weights
    if cause.rule == "R01" and finding.rule in ("R03", "R13", "R09"):
        # A start that is wrong is soon over, if it is not; targets that are far away drive a network to its limits.
        far_targets = cause.suggestion.startswith(BRING)
        if far_targets or finding.rule == "R03":
            return far_targets and (finding.step > 0 or finding.rule == "R09")
        if finding.rule == "R13" and cause.severity != "critical":
            return False
    mild = cause.severity != "critical" and cause.value <= 0
    jitters = finding.value < JITTERS * finding.threshold or cause.value < LARGE_WARNING
    if pair == ("R09", "R13") and mild and jitters:
        return False  # where nothing is to be learned small networks take such steps; too large ones cost something
    if pair == ("R03", "R11") and cause.step > 0:
        return False  # what moves too fast saturates
    if pair in (("R16", "R04"), ("R16", "R08")):
        return cause.value == 1  # less its mean, a single value is zero
    if pair in (("R16", "R13"), ("R16", "R09")):
        return cause.value <= FEW_VALUES  # what comes back through statistics of so few is mostly noise
    if finding.rule == "R09":
        severe = cause.severity == "critical" or (cause.rule == "R01" and finding.severity == "critical")
        return cause.step == 0 and (cause.value > 1 if cause.rule == "R05" else severe)
    if cause.rule == "R05" and finding.rule in ("R01", "R02"):
        return cause.value > 1  # scales that fade make an output small
    return True


def _explains_itself(finding: Finding, linked: dict[str, Finding]) -> bool:
    """Return whether the causes of a finding's causes lead back to it."""
    rule, passed = finding.caused_by, set[str]()
    while rule is not None and rule not in passed:
        passed.add(rule)
        rule = linked[rule].caused_by
    return finding.rule in passed


def _urgency(finding: Finding) -> tuple[int, int, int]:
    return -SEVERITIES.index(finding.severity), finding.step, ORDER.index(finding.rule)
