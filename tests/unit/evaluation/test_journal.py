"""Going on where an earlier run stopped: finished, interrupted, torn and damaged work, and other work."""

from __future__ import annotations

import pytest

from qr_core import ModelLoadError
from qr_core.evaluation.journal import Journal
from qr_core.evaluation.systems.bm25 import Bm25
from qr_core.evaluation.systems.entry import Entry
from tests.unit.evaluation.sample import MINILM, QUERIES, TINY, scores_of, timeless


def test_an_interrupted_run_goes_on(evaluated, beir, run, tmp_path, monkeypatch):
    args = [*beir, *TINY, "--systems", "given,bm25,qr"]
    whole = evaluated(*args, "--out", tmp_path / "whole")
    asked = []
    scores = Bm25.scores

    def breaks(self, query):
        asked.append(query)
        if len(asked) == 3:
            raise KeyboardInterrupt("power cut")
        return scores(self, query)

    with monkeypatch.context() as patch:
        patch.setattr(Bm25, "scores", breaks)
        assert run(*map(str, args), "--out", str(tmp_path / "cut"))[0] != 0
    assert list(scores_of(tmp_path / "cut", "bm25")) == ["q1", "q2"]
    with monkeypatch.context() as patch:
        patch.setattr(Bm25, "scores", lambda self, query: asked.append(query) or scores(self, query))
        resumed = evaluated(*args, "--out", tmp_path / "cut")
    assert asked[3:] == [QUERIES["q3"], QUERIES["q4"]]
    assert timeless(resumed) == timeless(whole)
    for name in ("bm25.trec", "qr.trec", "pools.jsonl", "qrels.txt"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def nothing_is_made(monkeypatch):
    def refuse(_):
        raise AssertionError("a system was made again")

    monkeypatch.setattr(Entry, "ranker", refuse)


def test_a_finished_run_needs_no_weights_and_takes_another_system(evaluated, beir, tmp_path, monkeypatch):
    args = [*beir, *TINY, "--dense-model", MINILM, "--out", tmp_path / "out"]
    first = evaluated(*args, "--systems", "qr,dense")
    with monkeypatch.context() as patch:
        nothing_is_made(patch)
        again = evaluated(*args, "--systems", "qr,dense")
    assert again == first  # times as well: they are kept
    made, ranker = [], Entry.ranker
    with monkeypatch.context() as patch:
        patch.setattr(Entry, "ranker", lambda entry: made.append(entry.name) or ranker(entry))
        more = evaluated(*args, "--systems", "qr,dense,given")
    assert made == ["given"]
    assert list(more["systems"]) == ["qr", "dense", "given"]
    assert more["systems"]["qr"] == first["systems"]["qr"]


def test_torn_and_damaged_journals(evaluated, run, beir, tmp_path):
    args = [*beir, "--systems", "bm25", "--out", str(tmp_path / "out")]
    first = evaluated(*args)
    journal = tmp_path / "out" / "work" / "bm25" / "records.jsonl"
    whole = journal.read_bytes()
    journal.write_bytes(whole[:-9])
    assert timeless(evaluated(*args)) == timeless(first)
    assert set(scores_of(tmp_path / "out", "bm25")) == set(QUERIES)
    journal.write_bytes(whole.replace(b'"scores": [', b'"scores": [1', 1))
    assert timeless(evaluated(*args)) == timeless(first)
    assert sorted(journal.read_bytes().splitlines()) != sorted(whole.splitlines())
    assert {line.split(b'"seconds"')[0].split(b"query-id")[1] for line in journal.read_bytes().splitlines()} == {
        line.split(b'"seconds"')[0].split(b"query-id")[1] for line in whole.splitlines()
    }


RECORDS = {f"q{n}": {"scores": [0.5, n / 3], "seconds": 1.0} for n in range(3)}


@pytest.fixture
def lines(tmp_path):
    """The lines of a whole journal."""
    journal = Journal(tmp_path / "whole", {})
    for key, record in RECORDS.items():
        journal.add(key, record)
    return (tmp_path / "whole" / "records.jsonl").read_bytes().splitlines(keepends=True)


def again(folder, content):
    Journal(folder, {})
    (folder / "records.jsonl").write_bytes(content)
    return Journal(folder, {})


@pytest.mark.parametrize("cut", [0, 1, 5, 40])
def test_what_a_kill_tore_is_run_again(tmp_path, lines, cut, caplog):
    journal = again(tmp_path / "torn", b"".join(lines[:2]) + lines[2][:cut])
    assert list(journal.records) == ["q0", "q1"]
    journal.add("q2", RECORDS["q2"])
    assert (tmp_path / "torn" / "records.jsonl").read_bytes() == b"".join(lines)
    assert not caplog.text


DAMAGE = {
    "nothing": lambda line: b"",
    "empty": lambda line: b"{}",
    "bytes": lambda line: b"\xff\0",
    "short": lambda line: line[:-6],
    "list": lambda line: b"[1]",
    "digit": lambda line: line.replace(b"0.5", b"0.6"),
    "id": lambda line: line.replace(b"q1", b"q2"),
    "deep": lambda line: b"[" * 10**5,
    "number": lambda line: b"7" * 5000,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_line_is_run_again(tmp_path, lines, damage, caplog):
    """Whatever happened to it; it is named, and the others are kept."""
    damaged = DAMAGE[damage](lines[1].rstrip(b"\n")) + b"\n"
    journal = again(tmp_path / "damaged", lines[0] + damaged + lines[2])
    assert journal.records == {key: {"query-id": key, **RECORDS[key]} for key in ("q0", "q2")}
    assert "line 2 of" in caplog.text
    assert (tmp_path / "damaged" / "records.jsonl").read_bytes() == lines[0] + lines[2]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--heads", "1-1"], "(heads, head_list differ)"),
        (["--template", "plain"], "(template differ)"),
        (["--limit", "2"], "(queries and candidates differ)"),
        (["--order", "shuffled"], "(queries and candidates differ)"),
        (["--max-words", "2"], "(queries and candidates differ)"),
        (["--systems", "bm25", "--limit", "2"], "(queries and candidates differ)"),
    ],
)
def test_other_work_in_the_same_folder_is_refused(evaluated, run, beir, tmp_path, change, words):
    args = [*beir, *TINY, "--systems", "qr,given", "--out", str(tmp_path / "out")]
    evaluated(*args)
    before = (tmp_path / "out" / "metrics.json").read_bytes()
    status, _, err = run(*args, *change)
    assert status == 2
    assert words in " ".join(err.split())
    assert (tmp_path / "out" / "metrics.json").read_bytes() == before


def test_a_system_that_failed_to_load_does_not_block_the_corrected_command(evaluated, run, beir, tmp_path):
    """Its folder holds a note and no result; a folder that holds results is refused as ever."""
    args = [*beir, *TINY, "--systems", "qr", "--out", str(tmp_path / "out")]
    with pytest.MonkeyPatch.context() as patch:

        def fails(_):
            raise ModelLoadError("no weights")

        patch.setattr(Entry, "ranker", fails)
        status, _, err = run(*args)
    assert status == 2
    assert "no weights" in err
    assert (tmp_path / "out" / "work" / "qr" / "job.json").exists()
    assert evaluated(*args, "--template", "plain", "--limit", "3")["queries"] == 3


class PanicError(BaseException):
    """As extensions in Rust raise: no `Exception`."""


def test_a_query_that_breaks_a_step_costs_itself_alone(evaluated, beir, tmp_path, monkeypatch):
    scores = Bm25.scores

    def breaks(self, query):
        if query == QUERIES["q2"]:
            raise PanicError("not a char boundary")
        return scores(self, query)

    monkeypatch.setattr(Bm25, "scores", breaks)
    row = evaluated(*beir, "--systems", "bm25", "--out", tmp_path / "out")["systems"]["bm25"]
    assert row["failed"] == {"q2": "PanicError: not a char boundary"}
    assert row["nDCG@10"]["queries"] == 3
