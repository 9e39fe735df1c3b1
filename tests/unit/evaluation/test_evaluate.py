"""`qrhead eval` from end to end on data made here: systems beside each other, failing queries, work done once."""

from __future__ import annotations

import json

import pytest
import torch

from qr_core import ContextLengthError
from qr_core.cache.documents import DocumentCache
from qr_core.errors import NonFiniteError
from qr_core.evaluation import launch, provenance
from qr_core.evaluation.systems.bm25 import Bm25
from tests.helpers import strict
from tests.unit.evaluation.sample import GRADES, MINILM, QUERIES, TEXTS, TINY, means, scores_of, write_beir


def test_systems_side_by_side_and_against_a_baseline(evaluated, beir, tmp_path):
    report = evaluated(*beir, *TINY, "--systems", "qr,all,random-heads,given,bm25,dense", "--draws", "2",
                       "--dense-model", MINILM, "--baseline", "given", "--measures", "nDCG@10,R(rel=2)@1,RR",
                       "--out", tmp_path / "out")  # fmt: skip
    names = ["qr", "all", "random-heads 0", "random-heads 1", "given", "bm25", "dense"]
    assert list(report["systems"]) == names
    assert report["baseline"] == "given"
    assert list(report["differences"]) == [name for name in names if name != "given"]
    assert means(report, "RR")["dense"] == 1.0
    assert means(report, "RR")["given"] == pytest.approx((1 + 1 / 4 + 1 / 6 + 1 / 2) / 4)
    difference = report["differences"]["dense"]["RR"]
    assert difference["mean"] == pytest.approx(1.0 - means(report, "RR")["given"])
    assert difference["p"] == 2 / 2**3  # one of the four queries has no difference
    assert report["systems"]["bm25"]["R(rel=2)@1"]["queries"] == 4
    assert strict((tmp_path / "out" / "metrics.json").read_text()) == report


def test_systems_leave_each_other_alone(evaluated, tmp_path):
    data = tmp_path / "long.json"
    paragraphs = [
        {"idx": key, "title": title or "", "paragraph_text": text * 4} for key, (title, text) in TEXTS.items()
    ]
    rows = [
        {"idx": q, "question": text, "paragraphs": paragraphs, "gt_docs": list(GRADES[q])}
        for q, text in QUERIES.items()
    ]
    data.write_text(json.dumps(rows))
    args = ["eval", "--task", "longcontext", "--data", data, *TINY]
    for name, more in (
        ("a", ["--systems", "qr"]),
        ("b", ["--systems", "qr,all", "--segments", "2,1"]),
        ("c", ["--systems", "all,qr"]),
    ):
        evaluated(*args, *more, "--out", tmp_path / name)
    assert scores_of(tmp_path / "a", "qr") == scores_of(tmp_path / "b", "qr") == scores_of(tmp_path / "c", "qr")
    assert scores_of(tmp_path / "b", "all") == scores_of(tmp_path / "c", "all")
    assert scores_of(tmp_path / "b", "qr-1-segment") == scores_of(tmp_path / "a", "qr")
    assert scores_of(tmp_path / "b", "qr-2-segments") != scores_of(tmp_path / "a", "qr")


def test_failures_of_one_query_do_not_stop_the_rest(evaluated, beir, tmp_path, monkeypatch):
    """Too long, not finite, out of memory: each costs its query, however many follow each other."""
    monkeypatch.setattr("qr_core.evaluation.runner.PATIENCE", 2)
    errors = {QUERIES["q1"]: ContextLengthError("long"), QUERIES["q2"]: NonFiniteError("nan"),
              QUERIES["q3"]: torch.OutOfMemoryError("full")}  # fmt: skip
    scores = Bm25.scores

    def fails(self, query):
        if query in errors:
            raise errors[query]
        return scores(self, query)

    args = [*beir, "--systems", "bm25,given", "--out", tmp_path / "out"]
    with monkeypatch.context() as patch:
        patch.setattr(Bm25, "scores", fails)
        report = evaluated(*args)
    row = report["systems"]["bm25"]
    assert row["failed"] == {
        "q1": "ContextLengthError: long",
        "q2": "NonFiniteError: nan",
        "q3": "OutOfMemoryError: full",
    }
    assert (row["untried"], row["nDCG@10"]["queries"]) == (0, 1)
    assert report["differences"]["given"]["nDCG@10"]["queries"] == 1
    assert "bm25: ranking failed for 3 queries" in (tmp_path / "out" / "report.md").read_text()
    assert "failed" not in evaluated(*args)["systems"]["bm25"]
    with monkeypatch.context() as patch:
        patch.setattr(Bm25, "scores", lambda *_: [float("nan")] * 6)
        report = evaluated(*beir, "--systems", "bm25,given", "--out", tmp_path / "nan")
    assert report["systems"]["bm25"]["nDCG@10"]["mean"] is None
    assert len(report["systems"]["bm25"]["failed"]) == 4


def test_another_seed_of_the_same_pools_counts_again(evaluated, beir, tmp_path):
    args = [*beir, "--systems", "given,bm25", "--out", tmp_path / "out"]
    one, other = evaluated(*args), evaluated(*args, "--seed", "7", "--measures", "RR")
    assert means(other, "RR")["bm25"] == 1.0
    assert (one["seed"], other["seed"]) == (0, 7)


def test_texts_that_queries_share_are_counted_and_hashed_once(evaluated, tmp_path, monkeypatch):
    texts = {name: [f"{name} {n} " * 50 for n in range(5)] for name in ("sea", "land")}
    books = [
        {
            "book": name,
            "paragraphs": [{"idx": str(n), "title": "", "paragraph_text": text} for n, text in enumerate(all_)],
        }
        for name, all_ in texts.items()
    ]
    claim = {"question_false": "no", "gt_docs": ["1"]}
    claims = [claim | {"idx": f"c{n}", "book": ("sea", "land")[n % 2], "question": f"{n}?"} for n in range(12)]
    (tmp_path / "books.json").write_text(json.dumps(books))
    (tmp_path / "claims.json").write_text(json.dumps(claims))
    counted, hashed = [], []
    digest = provenance.digest
    monkeypatch.setattr(launch, "counter", lambda entries: lambda text: counted.append(text) or len(text))
    monkeypatch.setattr(provenance, "digest", lambda value: hashed.append(value) or digest(value))
    args = ["eval", "--task", "clipper", "--data", tmp_path, "--systems", "bm25,given", "--out", tmp_path / "out"]
    report = evaluated(*args)
    assert len(counted) == 2 * 5 + 12
    assert len(hashed) == 2 + 1
    assert report["systems"]["bm25"]["tokens_per_second"] > 0


def test_a_system_that_is_done_keeps_no_documents(run, tmp_path, monkeypatch):
    """Documents encoded for one system are forgotten before the next one starts: its time includes its own encoding."""
    kept, dropped = [], DocumentCache.clear

    def clear(cache):
        kept.append(len(cache))
        dropped(cache)

    monkeypatch.setattr(DocumentCache, "clear", clear)
    arguments = write_beir(tmp_path / "data")
    assert run(*arguments, *TINY, "--layout", "independent", "--systems", "qr,all,bm25")[0] == 0
    assert kept == [len(TEXTS) + 1] * 2  # and what stands before them
