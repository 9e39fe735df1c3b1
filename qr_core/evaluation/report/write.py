"""Report: what an evaluation leaves in a folder, for people and for those who measure others on the same work.

    metrics.json             everything below, as data
    report.md, report.html   tables and plots; the HTML needs no other file
    per-query.csv            every measure and the seconds of every query, by system
    <system>.trec            a TREC run; equal scores keep the order of the candidates
    qrels.txt                the judgements of these queries, with ids as the runs have them; see `trec.word`
    pools.jsonl              each query's candidate set, in the order in which systems were handed it
    work/                    what has been done so far, by system; made elsewhere, see `journal`

Everything but `work/` is written anew by each run.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qr_core.checks import encodable
from qr_core.evaluation.evaluate import Results
from qr_core.evaluation.report import plots
from qr_core.evaluation.report.markdown import html, markdown, title
from qr_core.evaluation.report.rows import measures_of
from qr_core.evaluation.runner import file_name
from qr_core.evaluation.work import Work
from qr_core.files.replace import make_folder, write_file, writing
from qr_core.files.trec import write_qrels, write_run
from qr_core.files.workfolder import refuse_links

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What a formula begins with, in some spreadsheet."""


def write_report(folder: Path, results: Results, work: Work) -> None:
    """Write all files but `work/`, each whole.

    Raises
    ------
    InputError
        When one cannot be written.
    """
    make_folder(folder)
    refuse_links(folder)
    with writing(folder):
        _write(folder, results, work)


def _write(folder: Path, results: Results, work: Work) -> None:
    write_file(folder / "metrics.json", json.dumps(results.report, indent=2, allow_nan=False) + "\n")
    _write_candidates(folder / "pools.jsonl", work)
    for name, run in results.runs.items():
        write_run(folder / f"{file_name(name)}.trec", file_name(name), run)
    judged = {one.query_id: work.qrels[one.query_id] for one in work.candidate_sets if one.query_id in work.qrels}
    if judged:
        write_qrels(folder / "qrels.txt", judged)
    _write_values(folder / "per-query.csv", results)
    pictures = dict(_pictures(results, work))
    for name, picture in pictures.items():
        write_file(folder / name, picture)
    text = markdown(results.report, list(pictures))
    write_file(folder / "report.md", text)
    write_file(folder / "report.html", html(title(results.report), text, pictures))


def _write_candidates(path: Path, work: Work) -> None:
    """Texts as well where the task made them: nobody else could have the same."""
    lines = []
    for one in work.candidate_sets:
        row: dict[str, Any] = {"query-id": one.query_id, "query": one.query}
        row["candidates"] = [str(document.id) for document in one.documents]
        if work.grid:
            row["texts"] = [document.text for document in one.documents]
        lines.append(json.dumps(row) + "\n")
    write_file(path, "".join(lines))


def _write_values(path: Path, results: Results) -> None:
    measures = list(dict.fromkeys(measure for found in results.values.values() for measure in found))
    raw = io.StringIO(newline="")
    rows = csv.writer(raw)
    rows.writerow(["system", "query-id", *measures, "seconds"])
    for name, found in results.values.items():
        seconds = results.seconds.get(name, {})
        queries = dict.fromkeys([*seconds, *(query for values in found.values() for query in values)])
        for query in queries:
            cells = [found.get(measure, {}).get(query, "") for measure in measures]
            rows.writerow([name, _text(query), *cells, seconds.get(query, "")])
    write_file(path, raw.getvalue())


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
