"""The printed table of findings, and its words."""

import io

import pytest
from rich.console import Console

from bnlm.doctor import Finding, findings_table, print_findings
from bnlm.doctor.finding import of_size


def test_a_narrow_terminal_cuts_no_name():
    name = "model.encoder.layers.11.self_attention.in_proj_weight_of_the_second_branch"
    finding = Finding("R12", "critical", name, 40, 0.0, 0.0, f"{name}: no gradient.", "Look for a detach().")
    printed = io.StringIO()
    Console(file=printed, width=60).print(findings_table([finding]))
    column = "".join(line.split("│")[3].strip() for line in printed.getvalue().splitlines() if line.count("│") == 5)
    assert name in column


def test_names_that_look_like_markup(capsys: pytest.CaptureFixture[str]) -> None:
    where = "net.[red].[/INST]"
    print_findings([Finding("R03", "warning", where, 0, 0.7, 0.4, f"{where}: flat", f"look at {where}")])
    printed = "".join(capsys.readouterr().out.split())
    assert printed.count("[red]") == 2


def test_signs_that_the_terminal_does_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", out)
    print_findings([Finding("R03", "warning", "größe", 0, 0.7, 0.4, "größe: flat", "look")])
    out.flush()
    assert b"gr??e: flat" in out.buffer.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("log10", "text"),
    [(-3.0, "10^-3.0 of"), (0.0, "as much as"), (0.2, "1.6 times"), (3.9, "7,943 times"), (9.0, "10^9.0 times")],
)
def test_sizes_in_words(log10: float, text: str) -> None:
    assert of_size(log10) == f"{text} their size"
