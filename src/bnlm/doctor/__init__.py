"""Rules over the statistics of a run, and what they find."""

from bnlm.doctor.check import check
from bnlm.doctor.diagnosis import Diagnosis
from bnlm.doctor.facts import Facts, facts_of
from bnlm.doctor.finding import RULES, SEVERITIES, Finding
from bnlm.doctor.history import History
from bnlm.doctor.observation import Observation, Output, StatisticsGap
from bnlm.doctor.table import findings_markdown, findings_table, print_findings
from bnlm.doctor.weight_decay import decays_of

__all__ = [
    "RULES",
    "SEVERITIES",
    "Diagnosis",
    "Facts",
    "Finding",
    "History",
    "Observation",
    "Output",
    "StatisticsGap",
    "check",
    "decays_of",
    "facts_of",
    "findings_markdown",
    "findings_table",
    "print_findings",
]
