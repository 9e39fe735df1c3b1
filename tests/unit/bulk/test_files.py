"""A file of jobs: how it is read and where it is cut."""

from __future__ import annotations

import errno
import gzip
import json
import os
import signal
import tempfile
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qr_core import InputError
from qr_core.bulk import files as bulk_files
from qr_core.bulk.files import opened, read_part
from qr_core.bulk.run import rank_file
from tests.unit.bulk.jobs import OPTIONS, SCORER, rows_in, same, write


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


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The folder for temporary files."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path / "temporary"


def packed(folder, kind, count=3000):
    """A file of jobs that all say the same, which packs well."""
    rows = [{"query": "q", "documents": ["a" * 100]}] * count
    path = folder / f"jobs.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    return path


@pytest.mark.parametrize("kind", ["jsonl.gz", "parquet"])
def test_what_unpacks_without_end_is_refused_early(tmp_path, monkeypatch, temporary, kind):
    """By the rule of all packed files; nothing of it stays, and the disk never holds more than the bound."""
    path = packed(tmp_path, kind)
    with opened(path, 100) as file:
        assert file.jobs == 3000
    monkeypatch.setattr("qr_core.files.inputs.UNPACKED_BYTES", 1000)
    monkeypatch.setattr("qr_core.files.inputs.MOST_RATIO", 2)
    monkeypatch.setattr(bulk_files, "BLOCK", 100)
    written, write_ = [0], bulk_files._Copy.write

    def counted(self, block):
        write_(self, block)
        written[0] += len(block)

    monkeypatch.setattr(bulk_files._Copy, "write", counted)
    bound = max(1000, 2 * path.stat().st_size)
    with pytest.raises(InputError, match=rf"jobs\.{kind} unpacks to more than {bound:,} bytes"), opened(path, 100):
        pass
    assert written[0] <= bound
    assert list(temporary.iterdir()) == []


def test_a_full_temporary_folder_is_named(tmp_path, monkeypatch, temporary):
    class Full:
        def write(self, block):
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self):
            pass

    monkeypatch.setattr(bulk_files._Copy, "__enter__", lambda self: setattr(self, "_file", Full()) or self)
    path, words = packed(tmp_path, "jsonl.gz"), r"cannot unpack .* No space left on device; name another folder"
    with pytest.raises(InputError, match=words), opened(path, 100):
        pass
    assert list(temporary.iterdir()) == []


@pytest.fixture
def interruptible():
    """Python's own answer to an interrupt, which a process that a shell put into the background does not have."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_no_unpacked_jobs(tmp_path, monkeypatch, temporary, run, number):
    seen = []

    def stopped(*_):
        seen.extend(temporary.iterdir())
        os.kill(os.getpid(), number)
        for _ in range(500):  # until the signal arrives
            time.sleep(0.01)

    monkeypatch.setattr("qr_core.bulk.run._run", stopped)
    source = packed(tmp_path, "jsonl.gz", 3)
    status, _, err = run("rank-many", "--input", str(source), "--output", str(tmp_path / "out"), *OPTIONS)
    assert status != 0
    assert len(seen) == 1
    assert list(temporary.iterdir()) == []
    assert "Traceback" not in err
