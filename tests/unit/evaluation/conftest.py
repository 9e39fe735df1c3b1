"""Fixtures of the evaluation: data sets in files."""

from __future__ import annotations

import gzip
import json

import pytest

from tests.unit.evaluation.sample import write_beir


@pytest.fixture
def beir(tmp_path):
    return write_beir(tmp_path / "set")


CORPUS = [
    {"_id": "a1", "title": "Harbour", "text": "The lighthouse was first lit in 1871."},
    {"_id": "a2", "title": "Harbour", "text": "Ships wait outside at low tide."},
    {"_id": "a3", "title": "Harbour", "text": "The pier is closed in storms."},
    {"_id": "b1", "title": "Bakery", "text": "The oven is lit at five."},
]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "qrels").mkdir()
    (tmp_path / "corpus.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, CORPUS)).encode()))
    queries = [{"_id": "q1", "text": "When was the lighthouse lit?"}, {"_id": "q2", "text": "When is the oven lit?"}]
    (tmp_path / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\ta1\t1\nq2\tb1\t1\n")
    (tmp_path / "run.trec").write_text("q1 Q0 a2 1 3.0 x\nq1 Q0 a1 2 2.0 x\nq2 Q0 b1 1 9.0 x\nq2 Q0 a3 2 1.0 x\n")
    return tmp_path


MEETINGS = [
    {"meeting": "m1", "paragraphs": [{"idx": str(i), "title": "", "paragraph_text": t} for i, t in enumerate(TEXTS)]}
    for TEXTS in (["The lighthouse was lit in 1871. " * 9, "Ships wait outside. " * 12, "The pier is closed. " * 12],)
]


QUESTIONS = [
    {"idx": 7, "meeting": "m1", "question": "When was the lighthouse lit?", "gt_docs": ["0"]},
    {"idx": 8, "meeting": "m1", "question": "What is closed?", "gt_docs": ["2"]},
]


@pytest.fixture
def meetings(tmp_path):
    (tmp_path / "meetings.json.gz").write_bytes(gzip.compress(json.dumps(MEETINGS).encode()))
    (tmp_path / "queries.json").write_text(json.dumps(QUESTIONS))
    return tmp_path
