"""Show: results of an evaluation as a table on a terminal.

Knows nothing of how they came about.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.measure import Measurement

from qr_core.display.tables import table
from qr_core.display.terminal import plain
from qr_core.display.wording import with_interval, with_spread


def measures_of(systems: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Every measure that some system has, in order."""
    return list(
        dict.fromkeys(k for row in systems.values() for k, v in row.items() if isinstance(v, dict) and "low" in v)
    )


def show(out: Console, report: Mapping[str, Any]) -> None:
    """Systems down, measures across; many measures stand below each other instead."""
    results = report["systems"]
    out.print(plain(f"{report['data']}: {report['queries']} queries, mean [95% bootstrap interval]"))
    measures = measures_of(results)
    across = len(measures) <= 4
    rows = table("system", *measures, "seconds per query") if across else table("measure", *results)

    def cell(name: str, measure: str) -> str:
        value = results[name].get(measure)
        if not value or value["mean"] is None:
            return "-"
        return with_interval(value["mean"], value["low"], value["high"])

    def seconds(name: str) -> str:
        return f"{results[name]['seconds_per_query']:.3f}" if results[name].get("seconds_per_query") else "-"

    if across:
        for name in results:
            rows.add_row(name, *(cell(name, measure) for measure in measures), seconds(name))
    else:
        for measure in measures:
            rows.add_row(measure, *(cell(name, measure) for name in results))
        rows.add_row("seconds per query", *(seconds(name) for name in results))
    needed = Measurement.get(out, out.options.update(max_width=10_000), rows).maximum
    # On a narrow terminal its lines break, but no figure does.
    Console(file=out.file, width=max(out.width, needed), highlight=False, markup=False).print(rows)
    for name, row in results.items():
        if "missing" in row:
            out.print(plain(f"{name}: not run: {row['missing']}"), soft_wrap=True)
        failed = {**row.get("failed", {}), **row.get("answers", {}).get("failures", {})}
        if failed:
            query, reason = next(iter(failed.items()))
            untried = row.get("untried", 0) + row.get("answers", {}).get("untried", 0)
            more = f", and {untried} were not tried after failures in a row" if untried else ""
            out.print(plain(f"{name}: {len(failed)} queries failed{more}; {query}: {reason}"), soft_wrap=True)
    if orders := report.get("orders"):
        spreads = (
            f"{name} {with_spread(s['mean'], s['deviation'])}" for name, s in orders.items() if isinstance(s, dict)
        )
        tau = "-" if orders["kendall_tau"] is None else f"{orders['kendall_tau']:.3f}"
        out.print(f"{orders['orders']} orders: {', '.join(spreads)}; Kendall's tau {tau}", soft_wrap=True)
    for note in report["notes"]:
        out.print(plain(str(note)), soft_wrap=True)
