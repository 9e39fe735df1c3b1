"""Show: results of an evaluation as a table on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.measure import Measurement

from qr_core.display.tables import table
from qr_core.display.terminal import plain
from qr_core.display.wording import with_spread
from qr_core.evaluation.report.rows import interval, kendall_tau, measures_of, remarks, seconds

MOST_ACROSS = 4
"""Measures in columns; more of them stand below each other."""


def show(out: Console, report: Mapping[str, Any]) -> None:
    """Systems down, measures across; many measures stand below each other instead."""
    systems = report["systems"]
    measures = measures_of(systems)
    out.print(plain(f"{report['data']}: {report['queries']} queries, mean [95% bootstrap interval]"))
    columns = ["system", *measures, "seconds per query"]
    rows = [[name, *(interval(row, measure) for measure in measures), seconds(row)] for name, row in systems.items()]
    if len(measures) > MOST_ACROSS:
        columns, *rows = (list(column) for column in zip(["measure", *columns[1:]], *rows, strict=True))
    shown = table(*columns)
    for row in rows:
        shown.add_row(*row)
    needed = Measurement.get(out, out.options.update(max_width=10_000), shown).maximum
    # On a narrow terminal its lines break, but no figure does.
    Console(file=out.file, width=max(out.width, needed), highlight=False, markup=False).print(shown)
    if orders := report.get("orders"):
        spreads = (
            f"{name} {with_spread(spread['mean'], spread['deviation'])}"
            for name, spread in orders.items()
            if isinstance(spread, dict)
        )
        tau = kendall_tau(orders)
        out.print(f"{orders['orders']} orders: {', '.join(spreads)}; Kendall's tau {tau}", soft_wrap=True)
    for remark in remarks(report):
        out.print(plain(remark), soft_wrap=True)
