"""Bulk ranking: every job once, as `rank` ranks it; errors in their own rows; kills and changes of mind."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qr_core import InputError, NonFiniteError, QRScorer
from qr_core.bulk import ranker as bulk
from qr_core.bulk.files import opened, read_part
from qr_core.bulk.run import rank_file
from qr_core.errors import StoppedError
from qr_core.parallel import pool as ray_pool
from qr_core.parallel.pool import Workers
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


@pytest.mark.parametrize("name", ["parquet", "jsonl"])
def test_every_job_once_as_rank_ranks_it(tmp_path, name):
    jobs = jobs_of(8)
    write(tmp_path / "jobs.jsonl", jobs)
    summary = rank_file(tmp_path / "jobs.jsonl", tmp_path / "out", scorer=SCORER, format=name, part_size=2)
    rows = rows_in(tmp_path / "out")
    same(rows, jobs)
    assert (summary.jobs, summary.failed, summary.resumed) == (8, 0, 0)
    assert [row["id"] for row in rows] == [job["id"] for job in jobs]
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


def test_parts_are_cut_where_documents_change_but_not_without_end(tmp_path):
    write(tmp_path / "jobs.jsonl", [{"query": "q", "documents": ["a"]}] * 21)
    with opened(tmp_path / "jobs.jsonl", 2) as file:
        assert [part.jobs for part in file.parts] == [8, 8, 5]
        assert [part.first_job for part in file.parts] == [0, 8, 16]
        assert b"".join(read_part(file.path, part) for part in file.parts) == (tmp_path / "jobs.jsonl").read_bytes()


BROKEN = [
    (b"{broken", "line 2: not valid JSON"),
    (b"[1, 2]", "line 3: not a JSON object"),
    (b'{"documents": []}', "line 5: there is no 'query'"),
    (b'{"query": "q"}', "line 6: there is no 'documents'"),
    (b'{"query": "  ", "documents": ["a"]}', "line 7: the query is empty"),
    (b'{"query": "q", "documents": "a"}', "line 8: documents are of type str"),
    (b'{"query": "q", "documents": ["a", {"title": "T"}]}', "line 9: document 1 has no 'text' field"),
    (b'{"query": "q", "documents": [], "id": [1]}', "line 10: 'id' is of type list"),
    (b'{"query": "\xff", "documents": []}', "line 11: not UTF-8"),
    (b"[" * 100_000, "line 12: not valid JSON"),
    (b'{"query": 1e999, "documents": []}', "line 13: the query is of type float"),
]


@pytest.mark.parametrize("name", ["parquet", "jsonl"])
def test_broken_lines_are_rows_with_their_number(tmp_path, name):
    good = json.dumps({"query": "q", "documents": ["a"], "id": 3}).encode()
    lines = [good, *(line for line, _ in BROKEN[:2]), b"  ", *(line for line, _ in BROKEN[2:]), good]
    (tmp_path / "jobs.jsonl").write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(lines))
    summary = rank_file(tmp_path / "jobs.jsonl", tmp_path / "out", scorer=SCORER, format=name, part_size=3)
    rows = rows_in(tmp_path / "out")
    assert [row["job"] for row in rows] == list(range(13))
    assert [row["error"] is None for row in rows] == [True, *[False] * 11, True]
    for row, (_, words) in zip(rows[1:-1], BROKEN, strict=True):
        assert row["error"].startswith(words)
        assert row["hits"] is None
    assert (rows[0]["id"], rows[0]["line"], rows[-1]["line"]) == ("3" if name == "parquet" else 3, 1, 14)
    assert summary.failed == 11


def test_jobs_without_documents_and_files_without_jobs(tmp_path):
    write(tmp_path / "one.jsonl", [{"query": "q", "documents": []}])
    rank_file(tmp_path / "one.jsonl", tmp_path / "one", scorer=SCORER)
    assert rows_in(tmp_path / "one")[0]["hits"] == []
    (tmp_path / "none.jsonl").write_text("\n \n")
    summary = rank_file(tmp_path / "none.jsonl", tmp_path / "none", scorer=SCORER)
    assert (summary.jobs, summary.parts) == (0, 0)


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


def test_ids_may_repeat_elsewhere(tmp_path):
    write(tmp_path / "jobs.jsonl", [{"id": "q", "query": "q", "documents": SHELF}] * 3)
    rank_file(tmp_path / "jobs.jsonl", tmp_path / "out", scorer=SCORER)
    rows = rows_in(tmp_path / "out")
    assert [(row["job"], row["id"]) for row in rows] == [(0, "q"), (1, "q"), (2, "q")]
    assert sorted(hit["index"] for hit in rows[2]["hits"]) == [0, 1, 2, 3]


def test_a_job_that_fails_costs_no_other(tmp_path, monkeypatch):
    """Also where it was read together with others: it alone has the error."""
    jobs = [{"query": f"who lit {n}?", "documents": ["a lamp", "an oven"]} for n in range(6)]
    write(tmp_path / "jobs.jsonl", jobs)
    each = QRScorer._rank_each

    def failing(self, jobs, *rest):
        if any("lit 3" in query for query, _ in jobs):
            raise NonFiniteError("attention in layer 0\nis not finite")
        return each(self, jobs, *rest)

    monkeypatch.setattr(QRScorer, "_rank_each", failing)
    rank_file(tmp_path / "jobs.jsonl", tmp_path / "out", scorer=SCORER)
    monkeypatch.undo()
    rows = rows_in(tmp_path / "out")
    assert [row["error"] for row in rows] == [None] * 3 + ["line 4: attention in layer 0 is not finite"] + [None] * 2
    same(rows[:3], jobs[:3])


def test_unexpected_errors_end_the_run_only_in_a_row(tmp_path, monkeypatch):
    jobs = [{"query": f"q {n}", "documents": ["a"]} for n in range(2 * bulk.PATIENCE)]
    write(tmp_path / "jobs.jsonl", jobs)
    each, broken = QRScorer._rank_each, [lambda query: int(query[2:]) % 2 == 1]

    def failing(self, jobs, *rest):
        if any(broken[0](query) for query, _ in jobs):
            raise RuntimeError("no such device")
        return each(self, jobs, *rest)

    monkeypatch.setattr(QRScorer, "_rank_each", failing)
    assert rank_file(tmp_path / "jobs.jsonl", tmp_path / "out", scorer=SCORER).failed == bulk.PATIENCE
    assert rows_in(tmp_path / "out")[1]["error"] == "line 2: RuntimeError: no such device"
    broken[0] = lambda query: True
    with pytest.raises(StoppedError, match="line 5: RuntimeError: no such device, the 5th job in a row"):
        rank_file(tmp_path / "jobs.jsonl", tmp_path / "other", scorer=SCORER)


def test_a_run_goes_on_where_it_was_killed(tmp_path):
    """SIGKILL in the middle; finished parts are not written again, a torn one is."""
    jobs = jobs_of(12)
    write(tmp_path / "jobs.jsonl", jobs)
    code = (
        "import sys, time\n"
        "from qr_core.bulk import ranker as bulk\n"
        "from qr_core.cli import main as cli\n"
        "rank = bulk.Ranker.__call__\n"
        "def slow(self, part, lines):\n"
        "    if part.number == 2:\n"
        "        time.sleep(600)\n"
        "    return rank(self, part, lines)\n"
        "bulk.Ranker.__call__ = slow\n"
        "cli.main()\n"
    )
    out = tmp_path / "out"
    args = ["rank-many", "--input", str(tmp_path / "jobs.jsonl"), "--output", str(out), "--part-size", "3", *OPTIONS]
    process = subprocess.Popen([sys.executable, "-c", code, *args])
    end = time.monotonic() + 240
    while not (out / "parts.jsonl").exists() or (out / "parts.jsonl").read_bytes().count(b"\n") < 2:
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
    with pytest.raises(InputError, match="another run is writing"):
        rank_file(tmp_path / "jobs.jsonl", out, scorer=SCORER, part_size=3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with (out / "parts.jsonl").open("ab") as notes:
        notes.write(b'{"part": 2, "jo')
    (out / "part-00002.parquet.tmp").write_bytes(b"torn")
    kept = out / "part-00001.parquet"
    (out / "part-00000.parquet").write_bytes(b"torn")  # of another size than its note says
    before = kept.stat().st_mtime_ns, kept.stat().st_ino
    summary = rank_file(tmp_path / "jobs.jsonl", out, scorer=SCORER, part_size=3)
    assert (kept.stat().st_mtime_ns, kept.stat().st_ino) == before
    assert (summary.resumed, summary.parts) == (1, 4)
    same(rows_in(out), jobs)
    again = rank_file(tmp_path / "jobs.jsonl", out, scorer=SCORER, part_size=3)
    assert (again.resumed, again.jobs, again.failed) == (4, 12, 0)


def test_another_input_or_other_options_are_refused(tmp_path):
    write(tmp_path / "jobs.jsonl", jobs_of(3))
    rank_file(tmp_path / "jobs.jsonl", tmp_path / "out", scorer=SCORER)
    with pytest.raises(InputError, match=r"another run \(top k differ\)"):
        rank_file(tmp_path / "jobs.jsonl", tmp_path / "out", scorer=SCORER, top_k=1)
    with pytest.raises(InputError, match="heads, head list differ"):
        rank_file(tmp_path / "jobs.jsonl", tmp_path / "out", scorer={**SCORER, "heads": "2-1"})
    write(tmp_path / "jobs.jsonl", jobs_of(4))
    with pytest.raises(InputError, match="input, jobs differ"):
        rank_file(tmp_path / "jobs.jsonl", tmp_path / "out", scorer=SCORER)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    with pytest.raises(InputError, match="is not empty and holds no run"):
        rank_file(tmp_path / "jobs.jsonl", tmp_path / "mine", scorer=SCORER)


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


def test_without_the_extra_one_line_names_it(tmp_path, monkeypatch):
    write(tmp_path / "jobs.jsonl", jobs_of(1))
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"ray is missing: pip install 'qrhead\[distributed\]'"):
        rank_file(tmp_path / "jobs.jsonl", tmp_path / "a", scorer=SCORER, engine="ray")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(InputError, match=r"pyarrow.parquet is missing: pip install 'qrhead\[distributed\]'"):
        rank_file(tmp_path / "jobs.jsonl", tmp_path / "b", scorer=SCORER)


def test_room_for_workers():
    room = ray_pool._room
    assert room({"CPU": 16, "GPU": 2}, None, Workers(), 100) == (1, 2)
    assert room({"CPU": 16}, None, Workers(cpus=4), 100) == (0, 4)
    assert room({"CPU": 16, "GPU": 2}, "cpu", Workers(), 3) == (0, 3)
    assert room({"CPU": 1}, None, Workers(count=5), 3) == (0, 5)
    with pytest.raises(InputError, match="no room for a worker of 8 CPUs"):
        room({"CPU": 4}, None, Workers(cpus=8), 3)


def test_options_are_checked(tmp_path):
    write(tmp_path / "jobs.jsonl", jobs_of(1))
    for wrong in ({"engine": "spark"}, {"format": "csv"}, {"order": "random"}, {"top_k": 0}, {"part_size": 0}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            rank_file(tmp_path / "jobs.jsonl", tmp_path / "out", scorer=SCORER, **wrong)
    assert not os.path.exists(tmp_path / "out")
