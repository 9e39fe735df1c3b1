"""Examples for detection from the files they come in."""

from __future__ import annotations

import gzip
import json

import pytest

from qr_core import InputError
from qr_core.evaluation.data.examples import read_examples


def write(path, rows):
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def test_examples_from_json_lines(tmp_path):
    rows = [
        {"id": "a", "query": "q", "documents": ["x", {"text": "y", "title": "t"}], "gold": [1]},
        {"question": "q", "positives": ["good", "better"], "negatives": ["bad"]},
        {"query": "q", "pos": ["good"], "neg": [f"bad {n}" for n in range(9)]},
        {"id": "no query", "documents": ["x"], "gold": [0]},
        {"id": "no gold", "query": "q", "documents": ["x"]},
        {"id": "odd gold", "query": "q", "documents": ["x"], "gold": [True]},
        {"id": "no negatives", "query": "q", "pos": ["x"]},
        {"id": "odd document", "query": "q", "documents": [3], "gold": [0]},
    ]
    for name in ("e.jsonl", "e.jsonl.gz"):
        examples, problems = read_examples(write(tmp_path / name, rows))
        assert [e.id for e in examples] == ["a", "line 2", "line 3"]
        assert examples[0].gold == (1,)
        assert examples[0].documents[1].title == "t"
        assert {examples[1].documents[g].text for g in examples[1].gold} == {"good", "better"}
        assert {examples[2].documents[g].text for g in examples[2].gold} == {"good"}
        assert set(problems) == {"no query", "no gold", "odd gold", "no negatives", "odd document"}
        assert problems["no gold"] == "'gold' is no list of positions in 'documents'"
    assert read_examples(tmp_path / "e.jsonl")[0] == read_examples(tmp_path / "e.jsonl.gz")[0]
    (tmp_path / "torn.jsonl").write_text('{"query": ')
    with pytest.raises(InputError, match="line 1: not valid JSON"):
        read_examples(tmp_path / "torn.jsonl")


def test_positives_do_not_all_stand_first(tmp_path):
    rows = [{"query": f"q{n}", "pos": ["good"], "neg": [f"bad {i}" for i in range(9)]} for n in range(30)]
    examples, _ = read_examples(write(tmp_path / "e.jsonl", rows))
    assert len({example.gold for example in examples}) > 5


def test_examples_from_the_published_codes_json(tmp_path):
    paragraphs = [{"idx": "p1", "title": "T", "paragraph_text": "one"}, {"idx": "p2", "paragraph_text": "two"}]
    rows = [
        {"idx": "a", "question": "q", "paragraphs": paragraphs, "gt_docs": ["p2"]},
        {"idx": "b", "question": "q", "paragraphs": paragraphs, "gt_docs": ["p9"]},
        {"idx": "c", "question": "q", "paragraphs": paragraphs, "gt_docs": []},
        {"idx": "d", "question": "q", "paragraphs": [], "gt_docs": ["p1"]},
        {"idx": "a", "question": "q", "paragraphs": paragraphs, "gt_docs": ["p1"]},
    ]
    (tmp_path / "e.json").write_text(json.dumps(rows))
    examples, problems = read_examples(tmp_path / "e.json")
    assert [(e.id, e.gold) for e in examples] == [("a", (1,))]
    assert set(problems) == {"b", "c", "d", "a (entry 4)"}
    assert "'p9' is not in its context" in problems["b"]


def test_examples_from_a_beir_folder(tmp_path):
    write(tmp_path / "corpus.jsonl", [{"_id": f"d{n}", "title": "", "text": f"text {n}"} for n in range(3)])
    write(tmp_path / "queries.jsonl", [{"_id": key, "text": "q"} for key in ("a", "b", "c", "d")])
    (tmp_path / "qrels").mkdir()
    judged = ["a\td1\t2", "a\td0\t0", "b\td2\t1", "c\td1\t1", "d\td1\t1", "e\td1\t1"]
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "\n".join(judged) + "\n")
    run = write(
        tmp_path / "run.jsonl",
        [
            {"query-id": "a", "candidates": ["d0", "d1", "d2"]},
            {"query-id": "b", "candidates": ["d0", "d1"]},
            {"query-id": "c", "candidates": ["d9"]},
            {"query-id": "e", "candidates": ["d1"]},
        ],
    )
    examples, problems = read_examples(tmp_path, run)
    assert [(e.id, e.gold) for e in examples] == [("a", (1,)), ("b", ())]  # b is left out when heads are detected
    assert set(problems) == {"c", "d", "e"}
    assert "'d9' is not in the corpus" in problems["c"]
    assert len(read_examples(tmp_path, run, 2)[0][0].documents) == 2
    with pytest.raises(InputError, match="pass a run"):
        read_examples(tmp_path)
    with pytest.raises(InputError, match="go with a BEIR folder"):
        read_examples(run, run)
