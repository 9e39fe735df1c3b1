"""A file of jobs: how it is read and where it is cut."""

from __future__ import annotations

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qr_core import InputError
from qr_core.bulk.files import opened, read_part
from qr_core.bulk.run import rank_file
from tests.unit.bulk.jobs import SCORER, rows_in, same, write


def test_parts_are_cut_where_documents_change_but_not_without_end(tmp_path):
    write(tmp_path / "jobs.jsonl", [{"query": "q", "documents": ["a"]}] * 21)
    with opened(tmp_path / "jobs.jsonl", 2) as file:
        assert [part.jobs for part in file.parts] == [8, 8, 5]
        assert [part.first_job for part in file.parts] == [0, 8, 16]
        assert b"".join(read_part(file.path, part) for part in file.parts) == (tmp_path / "jobs.jsonl").read_bytes()


def test_parquet_and_gzip_in(tmp_path):
    jobs = [{"id": n, "query": f"who lit {n}?", "documents": ["a lamp", f"oven {n}"]} for n in range(5)]
    pq.write_table(
        pa.Table.from_pylist([*jobs, {"id": 5, "query": None, "documents": None}]), tmp_path / "jobs.parquet"
    )
    (tmp_path / "jobs.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, jobs)).encode()))
    rank_file(tmp_path / "jobs.parquet", tmp_path / "a", scorer=SCORER, part_size=2)
    rank_file(tmp_path / "jobs.jsonl.gz", tmp_path / "b", scorer=SCORER, part_size=2)
    rows = rows_in(tmp_path / "a")
    same(rows[:5], jobs)
    assert rows[5]["error"] == "line 6: there is no 'query'"
    assert rows_in(tmp_path / "b") == rows[:5]
    structs = [{"query": "q", "documents": [{"text": "a", "title": None}, {"text": "b", "title": "T"}]}]
    pq.write_table(pa.Table.from_pylist(structs), tmp_path / "structs.parquet")
    rank_file(tmp_path / "structs.parquet", tmp_path / "c", scorer=SCORER)
    same(rows_in(tmp_path / "c"), structs)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("jobs.csv", b"", "use a file ending in .jsonl or .parquet"),
        ("absent.jsonl", None, "cannot read .*absent.jsonl: No such file"),
        ("jobs.jsonl.gz", b"not gzip", "cannot read .*jobs.jsonl.gz"),
        ("jobs.parquet", b"not parquet", "cannot read .*jobs.parquet"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words):
        rank_file(tmp_path / name, tmp_path / "out", scorer=SCORER)


def test_parquet_without_the_columns(tmp_path):
    pq.write_table(pa.Table.from_pylist([{"q": "a"}]), tmp_path / "jobs.parquet")
    with pytest.raises(InputError, match="has no columns 'query' and 'documents'"):
        rank_file(tmp_path / "jobs.parquet", tmp_path / "out", scorer=SCORER)
