"""The printed table of findings, and its words."""

import io

import pytest
from rich.console import Console

from bnlm.doctor import Finding, findings_table
from bnlm.doctor.finding import of_size


def test_a_narrow_terminal_cuts_no_name():
    name = "model.encoder.layers.11.self_attention.in_proj_weight_of_the_second_branch"
    finding = Finding("R12", "critical", name, 40, 0.0, 0.0, f"{name}: no gradient.", "Look for a detach().")
    printed = io.StringIO()
    Console(file=printed, width=60).print(findings_table([finding]))
    column = "".join(line.split("│")[3].strip() for line in printed.getvalue().splitlines() if line.count("│") == 5)
    assert name in column


@pytest.mark.parametrize(
    ("log10", "words"), [(-3.0, "10^-3.0 of their size"), (0.0, "as much as their size"), (0.2, "1.6 times their size")]
)
def test_sizes_in_words(log10: float, words: str) -> None:
    assert of_size(log10) == words
