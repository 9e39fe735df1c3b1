"""The report on data that is all markup: HTML, Markdown, tables and run files show it as text."""

from __future__ import annotations

import base64
import csv
import json
import re
from html.parser import HTMLParser

import pytest

from tests.helpers import strict
from tests.unit.evaluation.sample import QUERIES, TEXTS, means

HOSTILE = (
    "<script>alert(1)</script> | `x` ![i](http://evil.example/i.png) [l](javascript:alert(1)) **b** ~~~ &lt; $x$\n# h"
)


ODD_IDS = {"=cmd|'/c calc'!A1": "d1", "a b": "d2", "a_b": "d3", "-1+2": "d4", "@x\ty": "d5", "<b>\ud800\0": "d6"}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """The folder of a report on data that is all markup."""
    from typer.testing import CliRunner

    from qr_core.cli.main import app

    folder = tmp_path_factory.mktemp("hostile")
    name = HOSTILE.replace("/", "%")
    texts = {key: TEXTS[old] for key, old in ODD_IDS.items()}
    queries = {
        f"{key}{HOSTILE if n == 0 else ''}": text
        for n, (key, text) in enumerate(zip(ODD_IDS, QUERIES.values(), strict=False))
    }
    grades = {query: {"a b": 1, "<b>\ud800\0": 2} for query in queries}
    (folder / name).mkdir()
    paragraphs = [
        {"idx": key, "title": title or "", "paragraph_text": body * 6} for key, (title, body) in texts.items()
    ]
    rows = [
        {"idx": query, "question": text, "gt_docs": list(grades[query]), "paragraphs": paragraphs}
        for query, text in queries.items()
    ]
    (folder / name / "data.json").write_text(json.dumps(rows))
    data = folder / name / f"{name}.json"
    (folder / name / "data.json").rename(data)
    args = ["eval", "--task", "longcontext", "--data", str(data), "--systems", "bm25,given,dense", "--windows", "2"]
    args += ["--baseline", "given", "--dense-model", "no/<script>`|model", "--out", str(folder / "out")]
    found = CliRunner().invoke(app, args)
    assert found.exit_code == 0, found.output
    return folder / "out", data.name, queries


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.sources, self.words = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href", "srcset", "style", "onload")]

    def handle_data(self, data):
        self.words.append(data)


def test_the_page_needs_nothing_and_shows_hostile_text_as_text(hostile):
    out, name, _ = hostile
    page = Page((out / "report.html").read_text())
    assert not {"script", "b", "iframe", "a", "del", "strong"} & set(page.tags)
    assert page.sources
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert all(base64.b64decode(source.split(",")[1]).startswith(b"\x89PNG") for source in page.sources)
    text = " ".join(page.words)
    shown = " ".join(name.split())
    assert page.words.count(f"longcontext: {shown}") == 2  # title and heading
    assert "no/<script>`|model" in text
    for part in ("Against given", "nDCG@10", "median s", "two-sided p", "qr, 2 segments"):
        assert part in text
    assert page.tags.count("table") == 3
    assert page.tags.count("h1") == 1


def test_the_markdown_escapes(hostile):
    from markdown_it import MarkdownIt

    out, name, _ = hostile
    text = (out / "report.md").read_text()
    page = Page(MarkdownIt("commonmark").enable("table").render(text))  # with HTML let through
    assert not {"script", "b", "a", "strong"} & set(page.tags)
    assert all(re.fullmatch(r"[\w.-]+\.png", source) for source in page.sources)
    assert f"longcontext: {' '.join(name.split())}" in page.words


def test_every_query_and_system_in_the_table_of_queries(hostile):
    out, _, queries = hostile
    with (out / "per-query.csv").open(newline="", encoding="utf-8") as raw:
        rows = list(csv.DictReader(raw))
    found = {(row["system"], row["query-id"].removeprefix("'").replace("\ufffd", "\ud800")) for row in rows}
    assert found == {(name, query) for name in ("bm25", "given", "qr, 2 segments") for query in queries}
    assert not [cell for row in rows for cell in row.values() if cell[:1] in ("=", "+", "-", "@", "\t")]
    assert all(float(row["nDCG@10"]) >= 0 and float(row["seconds"]) >= 0 for row in rows)


def test_run_files_of_odd_ids(hostile):
    out, _, queries = hostile
    lines = [line.split() for line in (out / "given.trec").read_text().split("\n")[:-1]]
    assert all(len(line) == 6 for line in lines)
    assert len({(line[0], line[2]) for line in lines}) == len(queries) * len(ODD_IDS)
    import ir_measures

    measure = ir_measures.parse_measure("nDCG@10")
    qrels = list(ir_measures.read_trec_qrels(str(out / "qrels.txt")))
    report = strict((out / "metrics.json").read_text())
    for name in ("bm25", "given", "qr-2-segments"):
        run = list(ir_measures.read_trec_run(str(out / f"{name}.trec")))
        mean = ir_measures.calc_aggregate([measure], qrels, run)[measure]
        assert mean == pytest.approx(means(report)[name.replace("qr-2-segments", "qr, 2 segments")], abs=1e-12)
