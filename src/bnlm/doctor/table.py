"""The findings for readers: a printed table, and a text for TensorBoard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bnlm.doctor.finding import Finding

if TYPE_CHECKING:
    from rich.table import Table

_STYLES = {"note": "dim", "warning": "yellow", "critical": "bold red"}


def findings_table(findings: Sequence[Finding]) -> Table:
    """Return a rich table, a row a finding; what is explained by another stands under it, indented."""
    from rich.table import Table  # here, so that the rules need torch only
    from rich.text import Text

    table = Table(title="Diagnosis", show_lines=True)
    if not findings:
        table.add_row("nothing found")
        return table
    for heading in ("finding", "step", "what", "what to do"):
        table.add_column(heading, justify="right" if heading == "step" else "left", overflow="fold")
    for finding in findings:
        because = f"\nbecause of {finding.caused_by}" if finding.caused_by else ""
        table.add_row(
            f"{'  ' if because else ''}{finding.severity} {finding.rule}\n{finding.name}{because}",
            str(finding.step),
            Text(finding.message),  # names of layers may look like markup
            Text(finding.suggestion),
            style=_STYLES[finding.severity],
        )
    return table


def print_findings(findings: Sequence[Finding]) -> None:
    """Print the table, with another sign for what the terminal has none for."""
    from rich.console import Console

    console = Console()
    with console.capture() as printed:
        console.print(findings_table(findings))
    console.file.write(printed.get().encode(console.encoding, "replace").decode(console.encoding))


def findings_markdown(findings: Sequence[Finding]) -> str:
    """Return a list in Markdown, an item a finding."""
    lines = [
        f"- **{f.severity} {f.rule} {f.name}**{f' (because of {f.caused_by})' if f.caused_by else ''}, step {f.step}: "
        f"{f.message} *{f.suggestion}*"
        for f in findings
    ]
    return "\n".join(lines) or "Nothing found."
