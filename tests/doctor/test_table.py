"""The printed table of findings."""

import io

from rich.console import Console

from bnlm.doctor import Finding, findings_table


def test_a_narrow_terminal_cuts_no_name():
    name = "model.encoder.layers.11.self_attention.in_proj_weight_of_the_second_branch"
    finding = Finding("R12", "critical", name, 40, 0.0, 0.0, f"{name}: no gradient.", "Look for a detach().")
    printed = io.StringIO()
    Console(file=printed, width=60).print(findings_table([finding]))
    column = "".join(line.split("│")[3].strip() for line in printed.getvalue().splitlines() if line.count("│") == 5)
    assert name in column
