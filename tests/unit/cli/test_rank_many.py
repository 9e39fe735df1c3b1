"""`qrhead rank-many`."""

from __future__ import annotations

import json

from tests.unit.bulk.jobs import OPTIONS, jobs_of, rows_in, write


def test_the_command(run, tmp_path):
    write(tmp_path / "jobs.jsonl", [*jobs_of(2), {"query": ""}])
    args = ["rank-many", "--input", str(tmp_path / "jobs.jsonl"), "--output", str(tmp_path / "out"), *OPTIONS]
    status, out, err = run(*args, "--format", "jsonl", "--top-k", "1", "--order", "reversed")
    assert status == 0
    assert json.loads(out)["failed"] == 1
    assert "1 of 3 jobs have an error instead of hits" in err
    assert [len(row["hits"] or []) for row in rows_in(tmp_path / "out")] == [1, 1, 0]
    status, _, err = run(*args)
    assert status == 2
    assert "order, top k, format differ" in err
    assert err.count("\n") == 1
