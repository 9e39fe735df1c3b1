"""Going on where an earlier run stopped: finished, interrupted, torn and damaged work, and other work."""

from __future__ import annotations

import json

import pytest

from qr_core import InputError
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
            raise RuntimeError("power cut")
        return scores(self, query)

    with monkeypatch.context() as patch:
        patch.setattr(Bm25, "scores", breaks)
        with pytest.raises(RuntimeError, match="power cut"):
            run(*map(str, args), "--out", str(tmp_path / "cut"))
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
    journal.write_bytes(whole.replace(b'"q2"', b"", 1))
    status, _, err = run(*args)
    assert status == 2
    assert "line 2 of" in err
    assert "is damaged: delete the line, and its query is run again" in " ".join(err.split())


LINES = [json.dumps({"query-id": f"q{n}", "seconds": 1.0}).encode() + b"\n" for n in range(3)]


@pytest.mark.parametrize("torn", [b"", LINES[2][:-1], LINES[2][:-5], b"{", b"\xff\0"])
def test_what_a_kill_tore_is_run_again(tmp_path, torn):
    Journal(tmp_path, {})
    (tmp_path / "records.jsonl").write_bytes(b"".join(LINES[:2]) + torn)
    journal = Journal(tmp_path, {})
    assert list(journal.records) == ["q0", "q1"]
    journal.add("q2", {"seconds": 1.0})
    assert (tmp_path / "records.jsonl").read_bytes() == b"".join(LINES)


@pytest.mark.parametrize(
    "damage", [b"", b"{}", b"\xff", LINES[1][:-5], b"[1]", b'{"query-id": "q1"}', b"[" * 10**5, b"7" * 5000]
)
def test_a_damaged_line_is_named(tmp_path, damage):
    Journal(tmp_path, {})
    (tmp_path / "records.jsonl").write_bytes(LINES[0] + damage.rstrip(b"\n") + b"\n" + LINES[2])
    with pytest.raises(InputError, match=r"line 2 of .*records\.jsonl is damaged"):
        Journal(tmp_path, {})


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
