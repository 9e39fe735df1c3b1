"""Jobs, and the rows that come of them, as the tests of bulk ranking write and read them."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest

from qr_core import QRScorer
from tests.helpers import GOLDEN

SCORER = {"model": str(GOLDEN / "tiny-llama"), "heads": "2-1,3-4", "template": "plain", "device": "cpu"}
OPTIONS = ["--model", SCORER["model"], "--heads", "2-1,3-4", "--template", "plain", "--device", "cpu"]
SHELF = [
    {"text": "The lamp was lit in 1871.", "id": "lamp", "title": "Light"},
    "Forty loaves \u00e0 cinq heures \U0001f35e",
    {"text": "", "id": 7},
    {"text": "The lamp was lit in 1871.", "id": "lamp"},
]


def jobs_of(count: int) -> list[dict]:
    """Jobs in runs of three that share their documents."""
    return [
        {"id": f"q{n} \u00fc", "query": f"who lit lamp {n}?", "documents": [*SHELF, f"shelf {n // 3}"]}
        for n in range(count)
    ]


def write(path, jobs) -> None:
    path.write_text("".join(json.dumps(job, ensure_ascii=False) + "\n" for job in jobs), encoding="utf-8")


def rows_in(folder) -> list[dict]:
    """All rows, in the order of the input."""
    rows = []
    for path in sorted(folder.glob("part-*")):
        if path.suffix == ".parquet":
            rows += pq.read_table(path).to_pylist()
        else:
            rows += [json.loads(line) for line in path.read_text().splitlines()]
    return rows


def same(rows, jobs) -> None:
    """Each job once, ranked as by itself."""
    scorer = QRScorer.from_pretrained(**SCORER)
    assert [row["job"] for row in rows] == list(range(len(jobs)))
    for row, job in zip(rows, jobs, strict=True):
        ranking = scorer.rank(job["query"], job["documents"])
        assert row["error"] is None
        assert [hit["index"] for hit in row["hits"]] == [hit.index for hit in ranking]
        assert [hit["score"] for hit in row["hits"]] == pytest.approx([hit.score for hit in ranking], abs=1e-6)
        assert [hit["relevance"] for hit in row["hits"]] == pytest.approx([hit.relevance for hit in ranking], abs=1e-4)
