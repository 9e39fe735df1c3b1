"""Bulk ranking as a whole: every job once, as `rank` ranks it; options, and what is missing."""

from __future__ import annotations

import os
import sys

import pytest

from qr_core import InputError, QRScorer
from qr_core.bulk.files import opened
from qr_core.bulk.run import rank_file
from tests.unit.bulk.jobs import SCORER, jobs_of, rows_in, same, write


@pytest.mark.parametrize("name", ["parquet", "jsonl"])
def test_every_job_once_as_rank_ranks_it(tmp_path, name):
    jobs = jobs_of(8)
    write(tmp_path / "jobs.jsonl", jobs)
    summary = rank_file(tmp_path / "jobs.jsonl", tmp_path / "out", scorer=SCORER, format=name, part_size=2)
    rows = rows_in(tmp_path / "out")
    same(rows, jobs)
    assert (summary.jobs, summary.failed, summary.resumed) == (8, 0, 0)
    assert [row["id"] for row in rows] == [job["id"] for job in jobs]
    assert (rows[0]["segments"], rows[0]["windows"]) == (1, 1)
    assert all(hit["segment"] == hit["window"] == 0 for hit in rows[0]["hits"])
    ids = {hit["index"]: hit["id"] for hit in rows[0]["hits"]}
    assert ids == {0: "lamp", 1: None, 2: "7" if name == "parquet" else 7, 3: "lamp", 4: None}


def test_the_same_documents_are_read_once_a_part(tmp_path, monkeypatch):
    """The very numbers of `rank_many` over the jobs of a part, and one group for each shelf."""
    jobs = jobs_of(9)
    write(tmp_path / "jobs.jsonl", jobs)
    with opened(tmp_path / "jobs.jsonl", 2) as file:
        assert [part.jobs for part in file.parts] == [3, 3, 3]
    rank_file(tmp_path / "jobs.jsonl", tmp_path / "out", scorer=SCORER, format="jsonl", part_size=2)
    scorer = QRScorer.from_pretrained(**SCORER, cache_bytes=0)
    found = rows_in(tmp_path / "out")
    for start in (0, 3, 6):
        rankings = scorer.rank_many([(job["query"], job["documents"]) for job in jobs[start : start + 3]])
        assert [[hit["score"] for hit in row["hits"]] for row in found[start : start + 3]] == [
            [hit.score for hit in ranking] for ranking in rankings
        ]


def test_jobs_without_documents_and_files_without_jobs(tmp_path):
    write(tmp_path / "one.jsonl", [{"query": "q", "documents": []}])
    rank_file(tmp_path / "one.jsonl", tmp_path / "one", scorer=SCORER)
    assert rows_in(tmp_path / "one")[0]["hits"] == []
    (tmp_path / "none.jsonl").write_text("\n \n")
    summary = rank_file(tmp_path / "none.jsonl", tmp_path / "none", scorer=SCORER)
    assert (summary.jobs, summary.parts) == (0, 0)


def test_without_the_extra_one_line_names_it(tmp_path, monkeypatch):
    write(tmp_path / "jobs.jsonl", jobs_of(1))
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"ray is missing: pip install 'qrhead\[distributed\]'"):
        rank_file(tmp_path / "jobs.jsonl", tmp_path / "a", scorer=SCORER, engine="ray")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(InputError, match=r"pyarrow.parquet is missing: pip install 'qrhead\[distributed\]'"):
        rank_file(tmp_path / "jobs.jsonl", tmp_path / "b", scorer=SCORER)


def test_options_are_checked(tmp_path):
    write(tmp_path / "jobs.jsonl", jobs_of(1))
    for wrong in ({"engine": "spark"}, {"format": "csv"}, {"order": "random"}, {"top_k": 0}, {"part_size": 0}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            rank_file(tmp_path / "jobs.jsonl", tmp_path / "out", scorer=SCORER, **wrong)
    assert not os.path.exists(tmp_path / "out")
