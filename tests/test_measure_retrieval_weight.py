"""`tools/measure_retrieval_weight.py` on a few passages; the tool with files and an encoder for real."""

from __future__ import annotations

import gzip
import json

import pytest

from qr_core.evaluation.systems import dense
from tools import measure_retrieval_weight as tool

PASSAGES = {
    "birds": ["Herons nest in April.", "Geese leave in October.", "Ducks stay all year.", "Swans mate for life."],
    "ships": ["The ferry sails at six.", "The tug is red.", "The brig sank in 1871."],
}
QUESTIONS = {"Herons nest in April.": "When do herons nest?", "The brig sank in 1871.": "When did the brig sink?"}


def by_length(*_):
    """An encoder that likes long passages."""
    return lambda sets: ([float(len(document.text)) for document in one.documents] for one in sets)


@pytest.fixture
def path(tmp_path):
    rows = [
        {"source": source, "title": "", "passage": text, "questions": [QUESTIONS[text]] if text in QUESTIONS else []}
        for source, texts in PASSAGES.items()
        for text in [*texts, texts[0]]
    ]
    file = tmp_path / "passages.jsonl.gz"
    file.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    return file


def test_from_passages_to_tables(path, monkeypatch, capsys, embedded):
    monkeypatch.setattr(dense, "dense_ranker", by_length)
    monkeypatch.setattr(tool.sys, "argv", ["measure", str(path), "--dense-model", "none"])
    assert tool.main() == 0
    printed = capsys.readouterr().out
    assert printed.count("2 questions of 2 sources") == 4  # two retrievers, two measures
    assert "| shares | mean of all | 1.000 |" in printed
    last = [line.split(" | ")[-1] for line in printed.splitlines() if line.startswith("| shares | mean of all")]
    assert last == ["1.000 |", "1.000 |", "0.631 |", "0.500 |"]  # one longer passage stands before each right one
    found = tool.candidates(tool.sources([path])["birds"], "none", 9, 9)
    assert [len(asked.documents) for asked in found["BM25"]] == [4]  # each text once
    assert tool.ranked(embedded, found["BM25"][0]).order[0] == found["BM25"][0].right


def test_forms_agree_at_both_ends():
    found = tool.Found([3.0, 2.0, 1.0, 0.0], [0.1, 0.4, 0.2, 0.3], [0.1, 0.4, 0.2, 0.3], [1, 3, 2, 0], 3)
    for join in tool.FORMS.values():
        assert join(found, 0.0) == [1, 3, 2, 0]
        assert join(found, 1.0) == [0, 1, 2, 3]
    assert tool.values({"one": [found, None]}, "ranks", "MRR@10", 0.0) == {"one": [0.5, 0.0]}
    assert tool.ndcg(1) == tool.reciprocal(1) == 1
    assert tool.ndcg(11) == tool.reciprocal(11) == 0
