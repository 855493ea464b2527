"""The initialisation of a model as a printed table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from bnlm.init.report import LayerReport

if TYPE_CHECKING:
    from rich.table import Table


def report_table(reports: Iterable[LayerReport]) -> Table:
    """Return a rich table with one row per weight: what its scale should be, and what was drawn.

    ``std drawn`` is taken over the weight's elements, so it strays from ``std wanted`` by about 1 / sqrt(2 * elements).
    """
    from rich.table import Table  # here, so that the schemes need torch only

    table = Table(title="Initialisation")
    table.add_column("layer")
    for heading in ("shape", "fan_in", "gain", "std wanted", "std drawn"):
        table.add_column(heading, justify="right")
    for report in reports:
        table.add_row(
            report.layer,
            " × ".join(map(str, report.shape)),
            f"{report.fan_in:g}",
            "-" if report.gain is None else f"{report.gain:.4f}",
            "data" if report.std_wanted is None else f"{report.std_wanted:.4f}",
            f"{report.std_drawn:.4f}",
        )
    return table
