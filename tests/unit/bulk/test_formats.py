"""Formats of results, and a new one."""

from __future__ import annotations

import json

import pytest

from qr_core import InputError, QRScorer
from qr_core.bulk.formats import FORMATS, Format
from qr_core.bulk.run import rank_file
from qr_core.files.trec import read_run
from tests.unit.bulk.jobs import OPTIONS, SCORER, SHELF, jobs_of, rows_in, write


def test_lone_surrogates_and_large_numbers(tmp_path):
    (tmp_path / "jobs.jsonl").write_text(
        '{"id": "\\ud800", "query": "a \\ud800", "documents": [{"text": "\\udfff", "id": "\\ud800"}]}\n'
        '{"id": 123456789012345678901234567890, "query": "q", "documents": ["a"]}\n'
    )
    for name in ("parquet", "jsonl", "trec"):
        rank_file(tmp_path / "jobs.jsonl", tmp_path / name, scorer=SCORER, format=name)
    rows = rows_in(tmp_path / "parquet")
    assert [row["id"] for row in rows] == ["\ufffd", "123456789012345678901234567890"]
    assert [row["error"] for row in rows] == [None, None]
    assert rows_in(tmp_path / "jsonl")[0]["id"] == "\ud800"
    assert (tmp_path / "trec" / "part-00000.trec").read_text().startswith("\\x{d800} Q0 \\x{d800} 1 ")


def test_control_characters_are_read_back(tmp_path):
    """Each format gives back what it was given, a line for each job, with nothing in it that steers a terminal."""
    key = "a\x1b[31m\x00\r\n\u2028\x85\x9b\\ b"
    write(tmp_path / "jobs.jsonl", [{"id": key, "query": "q", "documents": [{"text": f"lamp {key}", "id": key}]}])
    for name in ("parquet", "jsonl", "trec"):
        rank_file(tmp_path / "jobs.jsonl", tmp_path / name, scorer=SCORER, format=name)
    for name in ("parquet", "jsonl"):
        assert [(row["id"], row["hits"][0]["id"]) for row in rows_in(tmp_path / name)] == [(key, key)]
    written = {name: (tmp_path / name / f"part-00000.{name}").read_text() for name in ("jsonl", "trec")}
    assert read_run(written["trec"], "run") == {key: [key]}
    for text in written.values():
        assert not set(text) & set("\x1b\x00\r\u2028\x85\x9b")
        assert text.count("\n") == 1


def test_a_trec_run(tmp_path):
    jobs = [
        {"id": "a b", "query": "who lit it?", "documents": [{"text": "a lamp", "id": "d 1"}, "an oven"]},
        {"query": "who?", "documents": ["a lamp"]},
        {"id": "twice", "query": "who?", "documents": SHELF},
        {"id": "bad", "query": ""},
    ]
    write(tmp_path / "jobs.jsonl", jobs)
    summary = rank_file(tmp_path / "jobs.jsonl", tmp_path / "out", scorer=SCORER, format="trec")
    lines = [line.split(" ") for line in (tmp_path / "out" / "part-00000.trec").read_text().splitlines()]
    assert {line[0] for line in lines} == {"a\\x{20}b", "#1"}
    assert {line[2] for line in lines if line[0] != "#1"} == {"d\\x{20}1", "#1"}
    ranking = QRScorer.from_pretrained(**SCORER).rank(jobs[0]["query"], jobs[0]["documents"])
    assert [float(line[4]) for line in lines[:2]] == pytest.approx([hit.score for hit in ranking], abs=1e-6)
    assert [line[3] for line in lines[:2]] == ["1", "2"]
    errors = [json.loads(line) for line in (tmp_path / "out" / "part-00000.errors.jsonl").read_text().splitlines()]
    assert [error["job"] for error in errors] == [2, 3]
    assert "two documents have the id lamp" in errors[0]["error"]
    assert summary.failed == 2
    write(tmp_path / "jobs.jsonl", [{"id": "q", "query": "q", "documents": []}] * 2)
    with pytest.raises(InputError, match="line 2: the id q is that of line 1 too"):
        rank_file(tmp_path / "jobs.jsonl", tmp_path / "again", scorer=SCORER, format="trec")


def test_a_trec_run_has_places_where_scores_do_not_tell_the_order(tmp_path):
    documents = ["an oven", "a lamp that was lit", "forty loaves"]
    write(tmp_path / "jobs.jsonl", [{"id": "q", "query": "who lit it?", "documents": documents}])
    ranking = QRScorer.from_pretrained(**SCORER).rank("who lit it?", documents)
    assert [hit.index for hit in ranking] != [0, 1, 2]  # or this shows nothing
    for weight, scores in ((0, [hit.score for hit in ranking]), (1, [3.0, 2.0, 1.0])):
        asked = {**SCORER, "retrieval_weight": weight}
        rank_file(tmp_path / "jobs.jsonl", tmp_path / str(weight), scorer=asked, format="trec")
        lines = (tmp_path / str(weight) / "part-00000.trec").read_text().splitlines()
        assert [float(line.split()[4]) for line in lines] == pytest.approx(scores, abs=1e-6)
    assert read_run("\n".join(lines), "run") == {"q": ["#0", "#1", "#2"]}


def test_ids_may_repeat_elsewhere(tmp_path):
    write(tmp_path / "jobs.jsonl", [{"id": "q", "query": "q", "documents": SHELF}] * 3)
    rank_file(tmp_path / "jobs.jsonl", tmp_path / "out", scorer=SCORER)
    rows = rows_in(tmp_path / "out")
    assert [(row["job"], row["id"]) for row in rows] == [(0, "q"), (1, "q"), (2, "q")]
    assert sorted(hit["index"] for hit in rows[2]["hits"]) == [0, 1, 2, 3]


def test_a_new_format_is_one_entry(run, tmp_path):
    """From the command line, and in its help; what is not registered is one line and status 2."""
    write(tmp_path / "jobs.jsonl", jobs_of(2))
    args = ["rank-many", "--input", str(tmp_path / "jobs.jsonl"), "--output", str(tmp_path / "out"), *OPTIONS]
    args += ["--format", "best"]
    status, _, err = run(*args)
    assert status == 2
    assert err == "qrhead: format is 'best': use one of parquet, jsonl, trec\n"
    FORMATS.add("best", Format(lambda rows: (repr([row["hits"][0]["index"] for row in rows]).encode(), b"")))
    try:
        assert "<parquet|jsonl|trec|best>" in run("rank-many", "--help")[1]
        status, out, err = run(*args)
        assert status == 0, err
        assert json.loads(out)["failed"] == 0
        scorer = QRScorer.from_pretrained(**SCORER)
        best = [scorer.rank(job["query"], job["documents"])[0].index for job in jobs_of(2)]
        assert (tmp_path / "out" / "part-00000.best").read_text() == repr(best)
    finally:
        FORMATS.remove("best")
