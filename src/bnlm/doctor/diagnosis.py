"""All rules over one run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bnlm.doctor.batch_norm_rules import NEVER, batch_norm_findings
from bnlm.doctor.causes import explained
from bnlm.doctor.depth_rules import GRADIENT_CRITICAL
from bnlm.doctor.dropout_rules import dropout_findings
from bnlm.doctor.finding import SEVERITIES, Finding
from bnlm.doctor.frozen_rules import frozen_findings
from bnlm.doctor.history import WINDOW, History
from bnlm.doctor.initial_rules import initial_findings
from bnlm.doctor.loss_rules import ELSE, SIGN, loss_findings
from bnlm.doctor.output_rules import BRING, FOLLOWED, output_findings
from bnlm.doctor.overfitting_rules import overfitting_findings
from bnlm.doctor.refusal import refusal
from bnlm.doctor.small_update_rules import no_step, small_update_findings
from bnlm.doctor.spike_rules import BATCHES, spike_findings
from bnlm.doctor.standstill_rules import SCALE_TARGETS, standstill_findings
from bnlm.doctor.symmetry_rules import zero_findings
from bnlm.doctor.training_rules import LEARNED, training_findings
from bnlm.doctor.unreachable_rules import unreachable_findings
from bnlm.doctor.update_imbalance_rules import imbalance_findings
from bnlm.doctor.update_rules import all_learned, large_updates_ended, rises_at_start, update_findings

#: Optimizer steps after which a window, once it is full, is judged anew: sooner it has hardly moved on.
WINDOW_EVERY = 100
#: Of the start and of what knowing nothing costs: a loss below this share no longer stands still.
FALLEN = 0.8
#: The same share for a gradient that vanished at the start, and for one with which the loss stood still.
MOSTLY_LEARNED, SET_OUT = 0.25, 0.6
#: Rules of what the loss does, which may be over although it began with the start.
OF_LOSSES = ("R13", "R14")
#: Batches in which an optimizer should have taken its first step.
BATCHES_WITHOUT_STEP = 10


class Diagnosis:
    """The findings of a run so far: a rule is found once, and may become more severe, or a consequence of another."""

    def __init__(self) -> None:
        self._found: dict[str, Finding] = {}
        self._judged = 0  # the step at which the window was judged last
        self._rescales = False  # see `Facts`

    def update(self, history: History) -> list[Finding]:
        """Apply all rules; return the findings that are new or have become more severe."""
        self._rescales = history.facts.rescales
        self._settle(history)
        return self._take(_all_findings(history)) + self._blame_targets() + self._blame_fading()

    def follow(self, history: History) -> list[Finding]:
        """Do as `update` at an observed step; what looks at a window of them waits until it has moved on a little."""
        if history.observed <= WINDOW + 1 or history.step - self._judged >= WINDOW_EVERY:
            self._judged = history.step
            return self.update(history)
        return self._take(_of_losses(history))

    def refused(self, error: BaseException, step: int) -> list[Finding]:
        """Read the error that ended the run; return the findings that are new."""
        finding = refusal(error, step)
        return self._take(iter([finding] if finding is not None else []))

    def without_steps(self, batches: int, moved: bool) -> list[Finding]:
        """Take in that so many batches brought no optimizer step, and whether weights have moved all the same."""
        return self._take(iter([no_step(batches, moved)] if batches >= BATCHES_WITHOUT_STEP else []))

    def _take(self, findings: Iterator[Finding]) -> list[Finding]:
        fresh: dict[str, Finding] = {}
        for finding in findings:
            known = self._found.get(finding.rule)
            if known is None or SEVERITIES.index(finding.severity) > SEVERITIES.index(known.severity):
                # A note is no more than a remark: what becomes of it later, with reason, begins then.
                if known is not None and known.severity != "note":
                    # R12's value is for how long there had been no gradient by then.
                    value = known.value if finding.rule == "R12" else finding.value
                    finding = replace(finding, step=known.step, value=value)
                self._found[finding.rule] = fresh[finding.rule] = finding
            elif finding.rule == "R12" and finding.where == known.where:  # for so many steps by now
                self._found["R12"] = replace(known, message=finding.message)
            elif finding.rule == "R17" and known.suggestion == NEVER and finding.value > known.value:
                self._found["R17"] = replace(finding, step=known.step)  # a validation tells how far off they are
            elif finding.rule == "R07" and finding.suggestion.startswith(BATCHES):  # of the first few it was not clear
                self._found["R07"] = replace(finding, step=known.step)
        return list(fresh.values())

    def _settle(self, history: History) -> None:
        """Make a note of what was held against a network because its loss stood still, once it has fallen.

        A first step that was too large has done no great harm then: a warning is left of it, or less where it moved no
        weight by more than its size, and the loss did not rise.
        """
        start, recent = min(history.losses.first, abs(history.reference.loss)), history.losses.recent(50)

        def has_fallen(known: Finding) -> bool:
            if known.rule == "R01":  # targets that were far away have been reached, and followed
                return known.suggestion.startswith(BRING) and recent < FOLLOWED * history.reference.of_a_constant
            if known.rule == "R13":
                return recent < FALLEN * min(start, known.threshold)
            if known.rule == "R11":
                return all_learned(history)
            if known.rule == "R14":  # it is lower than ever, and has been rising all the same
                return history.losses.improves() and history.losses.smooth <= history.losses.best
            if known.rule == "R05":
                return known.step > 0 and recent < FALLEN * start
            if known.rule == "R06":
                return recent < (SET_OUT if known.step > 0 else MOSTLY_LEARNED) * start
            return recent < (FALLEN if known.rule == "R09" and harmless else LEARNED) * start

        first_step = self._found.get("R09")
        harmless = first_step is not None and first_step.value <= 0 and not rises_at_start(history)
        for rule in ("R01", "R05", "R06", "R13", "R03", "R09", "R10", "R11", "R14"):
            known = self._found.get(rule)
            if known is None or known.severity == "note" or not has_fallen(known):
                continue
            first_step_is_large = rule == "R09" and known.step == 0
            if first_step_is_large:
                settles = harmless or known.severity == "critical"
                settles = settles and history.warm and large_updates_ended(history) and not self._stands_still()
            elif rule == "R09":
                settles = all_learned(history)
            elif known.step == 0 and rule not in OF_LOSSES:
                # What was wrong with the start was so, whatever has become of it. Yet how much comes back in the first
                # step is less to go by than how much of it suffices.
                settles = rule == "R01" or (rule == "R06" and known.value < 1)
            else:
                settles = not (rule == "R03" and known.severity == "critical")
            if settles:
                message = f"{known.message} After {history.losses.steps} steps the loss has fallen to {recent:.3g}."
                severity = "warning" if first_step_is_large and not harmless else "note"
                change = known.suggestion
                if change.startswith(SIGN):  # which is right, then
                    change = change.partition(ELSE)[2] or change
                self._found[rule] = replace(known, severity=severity, message=message, suggestion=change)

    def _blame_targets(self) -> list[Finding]:
        """Make more of a remark on targets that are far from zero where the loss has not come near them since."""
        start = self._found.get("R01")
        far = self._stands_still() and self._found["R13"].suggestion == SCALE_TARGETS
        if start is None or start.severity != "note" or not start.suggestion.startswith(BRING) or not far:
            return []
        self._found["R01"] = replace(start, severity="warning")
        return [self._found["R01"]]

    def _blame_fading(self) -> list[Finding]:
        """Make more of a gradient that vanished at the start where the loss stands still and the first layers do, too.

        Biases alone may take a loss to the frequencies of its classes, and that is no sign that the rest learns.
        """
        start, apart = self._found.get("R06"), self._found.get("R11")
        faded = start is not None and start.severity == "note" and start.value < 1 / GRADIENT_CRITICAL
        if start is None or not faded or apart is None or apart.severity == "note" or not self._stands_still():
            return []
        self._found["R06"] = replace(start, severity="critical")
        return [self._found["R06"]]

    def _stands_still(self) -> bool:
        stuck = self._found.get("R13")
        return stuck is not None and stuck.severity != "note"

    @property
    def findings(self) -> list[Finding]:
        """All findings: causes before their consequences; first what is, or brings about, the most severe."""
        return explained(self._found, self._rescales)

    def restore(self, findings: list[Finding]) -> None:
        """Go on from the findings of an earlier part of the run."""
        self._found = {finding.rule: finding for finding in findings}


def _of_losses(history: History) -> Iterator[Finding]:
    yield from loss_findings(history)
    yield from unreachable_findings(history)
    yield from standstill_findings(history)
    yield from dropout_findings(history)


def _all_findings(history: History) -> Iterator[Finding]:
    yield from output_findings(history)
    yield from initial_findings(history)
    if history.recent:
        yield from zero_findings(history)
        yield from batch_norm_findings(history)
        yield from _of_losses(history)
        yield from overfitting_findings(history)
        yield from frozen_findings(history)
        yield from training_findings(history)
        yield from spike_findings(history)
        yield from update_findings(history)
        yield from imbalance_findings(history)
        yield from small_update_findings(history)
