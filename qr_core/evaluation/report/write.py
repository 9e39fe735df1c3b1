"""Report: what an evaluation leaves in a folder, for people and for those who measure others on the same work.

    metrics.json             everything that is told below, as data
    report.md, report.html   tables and plots; the HTML needs no other file
    per-query.csv            every measure and the seconds of every query, by system
    <system>.trec            a TREC run; equal scores keep the order of the candidates
    qrels.txt                the judgements of these queries, with ids as the runs have them; see `trec.word`
    pools.jsonl              the candidates of each query, in the order in which systems were handed them
    work/                    what has been done so far, by system; an interrupted run goes on from it

Knows nothing of how the numbers came about.
"""

from __future__ import annotations

import base64
import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from qr_core.checks import encodable
from qr_core.display.tables import markdown_cell, markdown_table
from qr_core.display.terminal import plain
from qr_core.display.wording import with_interval
from qr_core.evaluation.evaluate import Results
from qr_core.evaluation.report import plots
from qr_core.evaluation.report.show import measures_of
from qr_core.evaluation.runner import file_name
from qr_core.evaluation.work import Work
from qr_core.files.trec import write_qrels, write_run
from qr_core.files.workfolder import refuse_links

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;margin:1rem 0}td,th{padding:.25rem .7rem;border-bottom:1px solid #ccc}"
    "td+td,th+th{text-align:right}img{max-width:100%}"
)


FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What a formula begins with, in some spreadsheet."""


def write_report(folder: Path, results: Results, work: Work) -> None:
    """Write all files but `work/`."""
    folder.mkdir(parents=True, exist_ok=True)
    refuse_links(folder)
    (folder / "metrics.json").write_text(json.dumps(results.report, indent=2, allow_nan=False) + "\n")
    _write_pools(folder / "pools.jsonl", work)
    for name, run in results.runs.items():
        write_run(folder / f"{file_name(name)}.trec", file_name(name), run)
    judged = {pool.query_id: work.qrels[pool.query_id] for pool in work.pools if pool.query_id in work.qrels}
    if judged:
        write_qrels(folder / "qrels.txt", judged)
    _write_values(folder / "per-query.csv", results)
    pictures = dict(_pictures(results, work))
    for name, picture in pictures.items():
        (folder / name).write_bytes(picture)
    text = markdown(results.report, list(pictures))
    (folder / "report.md").write_text(text, encoding="utf-8")
    (folder / "report.html").write_text(html(_title(results.report), text, pictures), encoding="utf-8")


def _write_pools(path: Path, work: Work) -> None:
    """Texts as well where the task made them: nobody else could have the same."""
    with path.open("w", encoding="utf-8") as lines:
        for pool in work.pools:
            row: dict[str, Any] = {"query-id": pool.query_id, "query": pool.query}
            row["candidates"] = [str(d.id) for d in pool.documents]
            if work.grid:
                row["texts"] = [d.text for d in pool.documents]
            lines.write(json.dumps(row) + "\n")


def _write_values(path: Path, results: Results) -> None:
    measures = list(dict.fromkeys(measure for found in results.values.values() for measure in found))
    with path.open("w", encoding="utf-8", newline="") as raw:
        rows = csv.writer(raw)
        rows.writerow(["system", "query-id", *measures, "seconds"])
        for name, found in results.values.items():
            seconds = results.seconds.get(name, {})
            queries = dict.fromkeys([*seconds, *(query for values in found.values() for query in values)])
            for query in queries:
                cells = [found.get(measure, {}).get(query, "") for measure in measures]
                rows.writerow([name, _text(query), *cells, seconds.get(query, "")])


def _text(key: str) -> str:
    """An id that a spreadsheet does not take for a formula: an apostrophe stands before one that looks like one."""
    return encodable(f"'{key}" if key[:1] in FORMULA else key)


def _pictures(results: Results, work: Work) -> Iterator[tuple[str, bytes]]:
    systems = results.report["systems"]
    measures = [m for m in measures_of(systems) if any(isinstance(row.get(m), dict) for row in systems.values())]
    if not measures:
        return
    yield "quality.png", plots.quality(systems, measures[0])
    if any(row.get("median_seconds") for row in systems.values()):
        yield "time.png", plots.against_time(systems, measures[0])
    if work.grid:
        for name, found in results.values.items():
            if found.get(measures[0]):
                picture = plots.needle_grid(work.grid, found[measures[0]], name, measures[0])
                yield f"needles-{file_name(name)}.png", picture


def markdown(report: Mapping[str, Any], pictures: Sequence[str] = ()) -> str:
    """The report as Markdown."""
    systems = report["systems"]
    measures = measures_of(systems)
    lines = [f"# {markdown_cell(_title(report))}", "", f"{report['queries']} queries, seed {report['seed']}. "]
    lines[-1] += "Mean and 95% bootstrap interval over queries."
    rows = [[name, *(_interval(row, m) for m in measures)] for name, row in systems.items()]
    lines += ["", *markdown_table(["system", *measures], rows)]
    lines += [
        "",
        *(
            f"- {markdown_cell(name)}: not run: {markdown_cell(row['missing'])}"
            for name, row in systems.items()
            if "missing" in row
        ),
    ]
    lines += [f"- {markdown_cell(note)}" for note in _failed(systems)] + [
        f"- {markdown_cell(note)}" for note in report.get("notes", ())
    ]
    if report.get("differences"):
        lines += [
            "",
            f"## Against {markdown_cell(report['baseline'])}",
            "",
            "Paired over queries: mean difference, its 95% interval, and",
        ]
        lines += ["two-sided p of a sign-flip permutation test, not corrected for the number of comparisons.", ""]
        rows = [[name, *(_difference(row, m) for m in measures)] for name, row in report["differences"].items()]
        lines += markdown_table(["system", *measures], rows)
    if report.get("orders"):
        lines += ["", "## Document order", "", *_orders(report["orders"])]
    if any("answers" in row for row in systems.values()):
        lines += ["", "## Answers", "", *_answers(systems)]
    lines += [
        "",
        "## Time",
        "",
        "Of one process, loading included in the first query; documents that consecutive queries",
    ]
    lines += ["share are read once. Memory holds what earlier systems left loaded.", ""]
    lines += markdown_table(["system", "median s", "p95 s", "mean s", "tokens/s", "peak MiB"], _times(systems))
    lines += [line for name in pictures for line in ("", f"![{name}]({name})")]
    lines += ["", "## Configuration", "", "```json"]
    kept = {key: value for key, value in report.items() if key not in ("systems", "differences")}
    kept["systems"] = {
        name: {k: v for k, v in row.items() if not isinstance(v, dict) or k == "replies"}
        for name, row in systems.items()
    }
    return "\n".join([*lines, json.dumps(kept, indent=1), "```", ""])


def _title(report: Mapping[str, Any]) -> str:
    return plain(f"{report['task']}: {report['data']}")


def html(title: str, text: str, pictures: Mapping[str, bytes]) -> str:
    """The report, in Markdown, as one HTML page that needs no other file."""
    from markdown_it import MarkdownIt

    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    for name, raw in pictures.items():
        data = f"data:image/png;base64,{base64.b64encode(raw).decode()}"
        body = body.replace(f'src="{escape(name)}"', f'src="{data}"')
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    return f"<!doctype html>\n<html lang=en><head>{head}<style>{STYLE}</style></head><body>\n{body}</body></html>\n"


def _interval(row: Mapping[str, Any], measure: str) -> str:
    found = row.get(measure)
    if not found or found["mean"] is None:
        return "-"
    return with_interval(found["mean"], found["low"], found["high"])


def _difference(row: Mapping[str, Any], measure: str) -> str:
    found = row.get(measure)
    if not found or found["mean"] is None:
        return "-"
    p = "" if found["p"] is None else ", p < 0.001" if found["p"] < 0.001 else f", p {found['p']:.3f}"
    return with_interval(found["mean"], found["low"], found["high"], sign="+") + p


def _failed(systems: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
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


def _answers(systems: Mapping[str, Mapping[str, Any]]) -> list[str]:
    counted = {name: row["answers"] for name, row in systems.items() if "answers" in row}
    kinds = list(dict.fromkeys(kind for found in counted.values() for kind in found["kinds"]))
    rows = [
        [name, *(_interval(found["kinds"], kind) for kind in kinds), found["unparsed"], found["failed"]]
        for name, found in counted.items()
    ]
    return markdown_table(["accuracy", *(kind or "all" for kind in kinds), "unparsed", "without verdict"], rows)


def _orders(found: Mapping[str, Any]) -> list[str]:
    measures = [name for name, spread in found.items() if isinstance(spread, dict)]
    columns = ("mean", "deviation", "least", "most")
    rows = [[name, *(f"{found[name][column]:.3f}" for column in columns)] for name in measures]
    tau = found["kendall_tau"]
    about = f"{found['orders']} shuffled orders; Kendall's tau between two of them: "
    return [about + ("-" if tau is None else f"{tau:.3f}") + ".", "", *markdown_table(["measure", *columns], rows)]


def _times(systems: Mapping[str, Mapping[str, Any]]) -> list[list[object]]:
    rows: list[list[object]] = []
    for name, row in systems.items():
        if not row.get("median_seconds"):
            continue
        peak, rate = row.get("peak_memory"), row.get("tokens_per_second")
        seconds = [
            f"{row[key]:{'.3f' if row[key] >= 0.01 else '.2g'}}"
            for key in ("median_seconds", "p95_seconds", "seconds_per_query")
        ]
        rows.append([name, *seconds, f"{rate:,.0f}" if rate else "-", f"{peak / 2**20:,.0f}" if peak else "-"])
    return rows
