"""Markdown: the report as text, and as one HTML page that needs no other file."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from qr_core.display.tables import markdown_cell, markdown_table
from qr_core.display.terminal import plain
from qr_core.evaluation.report.rows import NONE, difference, interval, kendall_tau, measures_of, remarks, seconds

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;margin:1rem 0}td,th{padding:.25rem .7rem;border-bottom:1px solid #ccc}"
    "td+td,th+th{text-align:right}img{max-width:100%}"
)
Systems = Mapping[str, Mapping[str, Any]]


def markdown(report: Mapping[str, Any], pictures: Sequence[str] = ()) -> str:
    """The report as Markdown."""
    systems = report["systems"]
    measures = measures_of(systems)
    paired = (
        "Paired over queries: mean difference, its 95% interval, and two-sided p of a sign-flip permutation test, not "
        "corrected for the number of comparisons."
    )
    time = (
        "Of one process, loading included in the first query; documents that consecutive queries share are encoded "
        "once. Memory holds what earlier systems left loaded."
    )
    lines = [
        f"# {markdown_cell(title(report))}",
        "",
        f"{report['queries']} queries, seed {report['seed']}. Mean and 95% bootstrap interval over queries.",
        "",
        *markdown_table(
            ["system", *measures],
            [[name, *(interval(row, measure) for measure in measures)] for name, row in systems.items()],
        ),
        "",
        *(f"- {markdown_cell(remark)}" for remark in remarks(report)),
    ]
    if differences := report.get("differences"):
        rows = [[name, *(difference(row, measure) for measure in measures)] for name, row in differences.items()]
        lines += [
            "",
            f"## Against {markdown_cell(report['baseline'])}",
            "",
            paired,
            "",
            *markdown_table(["system", *measures], rows),
        ]
    if report.get("orders"):
        lines += ["", "## Document order", "", *_orders(report["orders"])]
    if any("answers" in row for row in systems.values()):
        lines += ["", "## Answers", "", *_answers(systems)]
    lines += ["", "## Time", "", time, "", *_times(systems)]
    lines += [line for name in pictures for line in ("", f"![{name}]({name})")]
    return "\n".join([*lines, "", "## Configuration", "", "```json", _configuration(report), "```", ""])


def title(report: Mapping[str, Any]) -> str:
    """What was evaluated."""
    return plain(f"{report['task']}: {report['data']}")


def html(heading: str, text: str, pictures: Mapping[str, bytes]) -> str:
    """The report, in Markdown, as one HTML page."""
    from markdown_it import MarkdownIt

    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    for name, raw in pictures.items():
        data = f"data:image/png;base64,{base64.b64encode(raw).decode()}"
        body = body.replace(f'src="{escape(name)}"', f'src="{data}"')
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(heading)}</title>'
    return f"<!doctype html>\n<html lang=en><head>{head}<style>{STYLE}</style></head><body>\n{body}</body></html>\n"


def _answers(systems: Systems) -> list[str]:
    counted = {name: row["answers"] for name, row in systems.items() if "answers" in row}
    kinds = list(dict.fromkeys(kind for found in counted.values() for kind in found["kinds"]))
    rows = [
        [name, *(interval(found["kinds"], kind) for kind in kinds), found["unparsed"], found["failed"]]
        for name, found in counted.items()
    ]
    return markdown_table(["accuracy", *(kind or "all" for kind in kinds), "unparsed", "without verdict"], rows)


def _orders(found: Mapping[str, Any]) -> list[str]:
    measures = [name for name, spread in found.items() if isinstance(spread, dict)]
    columns = ("mean", "deviation", "least", "most")
    rows = [[name, *(f"{found[name][column]:.3f}" for column in columns)] for name in measures]
    about = f"{found['orders']} shuffled orders; Kendall's tau between two of them: {kendall_tau(found)}."
    return [about, "", *markdown_table(["measure", *columns], rows)]


def _times(systems: Systems) -> list[str]:
    rows = []
    for name, row in systems.items():
        if row.get("median_seconds"):
            peak, rate = row.get("peak_memory"), row.get("tokens_per_second")
            times = [seconds(row, key) for key in ("median_seconds", "p95_seconds", "seconds_per_query")]
            rows.append([name, *times, f"{rate:,.0f}" if rate else NONE, f"{peak / 2**20:,.0f}" if peak else NONE])
    return markdown_table(["system", "median s", "p95 s", "mean s", "tokens/s", "peak MiB"], rows)


def _configuration(report: Mapping[str, Any]) -> str:
    """All that decided the figures, without the figures."""
    kept = {key: value for key, value in report.items() if key not in ("systems", "differences")}
    kept["systems"] = {
        name: {key: value for key, value in row.items() if not isinstance(value, dict) or key == "replies"}
        for name, row in report["systems"].items()
    }
    return json.dumps(kept, indent=1)
