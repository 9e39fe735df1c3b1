"""The jobs of a part: errors stay in their own rows, until something is wrong with the device."""

from __future__ import annotations

import json
import pickle

import pytest

from qr_core import NonFiniteError, QRScorer, ScorerOptions
from qr_core.bulk import ranker as bulk
from qr_core.bulk.files import opened, read_part
from qr_core.bulk.ranker import Options, Ranker
from qr_core.bulk.run import rank_file
from qr_core.errors import StoppedError
from tests.unit.bulk.jobs import SCORER, rows_in, same, write

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


def test_what_is_asked_travels_to_other_processes(tmp_path):
    """As Ray sends it to its workers."""
    write(tmp_path / "jobs.jsonl", [{"query": "who lit it?", "documents": ["a lamp", "an oven"]}])
    options = Options(ScorerOptions(**SCORER), top_k=1, format="jsonl")
    with opened(tmp_path / "jobs.jsonl", 1) as file:
        sent = pickle.loads(pickle.dumps((options, file.parts[0])))  # noqa: S301 - our own
        assert sent == (options, file.parts[0])
        done = Ranker(sent[0])(sent[1], read_part(file.path, sent[1]))
    (row,) = [json.loads(line) for line in done.content.splitlines()]
    assert len(row["hits"]) == 1


class PanicError(BaseException):
    """As extensions in Rust raise: no `Exception`."""


@pytest.mark.parametrize("kind", [PanicError, RuntimeError])
def test_a_text_that_breaks_a_step_costs_its_jobs_alone(tmp_path, monkeypatch, kind):
    """Also where more jobs in a row hold it than a broken device is allowed: a plain job shows that it works."""
    texts = ["a lamp", *["cursed"] * (bulk.PATIENCE + 2), "an oven"]
    write(tmp_path / "jobs.jsonl", [{"query": "who lit it?", "documents": [text]} for text in texts])
    each = QRScorer._rank_each

    def failing(self, jobs, *rest):
        if any("cursed" in document.text for _, documents in jobs for document in documents):
            raise kind("byte index 3 is not a char boundary")
        return each(self, jobs, *rest)

    monkeypatch.setattr(QRScorer, "_rank_each", failing)
    summary = rank_file(tmp_path / "jobs.jsonl", tmp_path / "out", scorer=SCORER)
    rows = rows_in(tmp_path / "out")
    assert summary.failed == len(texts) - 2
    assert [row["error"] is None for row in rows] == [text != "cursed" for text in texts]
    assert rows[1]["error"] == f"line 2: {kind.__name__}: byte index 3 is not a char boundary"


@pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit])
def test_what_ends_a_program_ends_a_run(tmp_path, monkeypatch, ending):
    write(tmp_path / "jobs.jsonl", [{"query": "q", "documents": ["a"]}])

    def stopped(*_):
        raise ending

    monkeypatch.setattr(QRScorer, "_rank_each", stopped)
    with pytest.raises(ending):
        rank_file(tmp_path / "jobs.jsonl", tmp_path / "out", scorer=SCORER)
