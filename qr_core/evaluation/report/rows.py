"""Rows: figures and remarks of a report as plain text, the same on a terminal, in Markdown and in HTML."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from qr_core.display.wording import with_interval

NONE = "-"
"""Stands where there is no figure."""


def measures_of(systems: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Every measure that some system has, in order."""
    return list(
        dict.fromkeys(k for row in systems.values() for k, v in row.items() if isinstance(v, dict) and "low" in v)
    )


def interval(row: Mapping[str, Any], measure: str) -> str:
    """A measure's mean and interval."""
    found = row.get(measure)
    if not found or found["mean"] is None:
        return NONE
    return with_interval(found["mean"], found["low"], found["high"])


def difference(row: Mapping[str, Any], measure: str) -> str:
    """A measure's mean difference to the baseline, with its interval and p."""
    found = row.get(measure)
    if not found or found["mean"] is None:
        return NONE
    p = "" if found["p"] is None else ", p < 0.001" if found["p"] < 0.001 else f", p {found['p']:.3f}"
    return with_interval(found["mean"], found["low"], found["high"], sign="+") + p


def seconds(row: Mapping[str, Any], key: str = "seconds_per_query") -> str:
    """One of a system's times."""
    value = row.get(key)
    return f"{value:{'.3f' if value >= 0.01 else '.2g'}}" if value else NONE


def kendall_tau(orders: Mapping[str, Any]) -> str:
    """The rank correlation between two orders of the same candidates."""
    return NONE if orders["kendall_tau"] is None else f"{orders['kendall_tau']:.3f}"


def remarks(report: Mapping[str, Any]) -> Iterator[str]:
    """Which systems were not run, which queries failed, and what a reader must know."""
    systems = report["systems"]
    yield from (f"{name}: not run: {row['missing']}" for name, row in systems.items() if "missing" in row)
    for name, row in systems.items():
        answers = row.get("answers", {})
        for what, found, untried in (
            ("ranking", row.get("failed"), row.get("untried")),
            ("answering", answers.get("failures"), answers.get("untried")),
        ):
            if found:
                query, reason = next(iter(found.items()))
                more = f" and {untried} more were not tried" if untried else ""
                many = f"{len(found)} quer{'y' if len(found) == 1 else 'ies'}{more}; the next run tries them again"
                yield f"{name}: {what} failed for {many}. {query}: {reason}"
    yield from map(str, report["notes"])
