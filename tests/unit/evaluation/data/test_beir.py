"""BEIR folders and their candidates: from a run, by title, and what is malformed."""

from __future__ import annotations

import pytest

from qr_core import Document, InputError
from qr_core.evaluation import beir as former
from qr_core.evaluation.data import beir
from qr_core.evaluation.work import CandidateSet, Pool, Work


def test_sets_from_a_run(folder):
    data = beir.read_beir(folder)
    sets = beir.sets_from_candidates(data, beir.read_candidates(folder / "run.trec"), None)
    assert [[d.id for d in candidates.documents] for candidates in sets] == [["a2", "a1"], ["b1", "a3"]]
    assert sets[0].documents[1] == Document("The lighthouse was first lit in 1871.", "Harbour", "a1")
    assert [
        len(p.documents) for p in beir.sets_from_candidates(data, beir.read_candidates(folder / "run.trec"), 1)
    ] == [1, 1]


def test_sets_by_title_are_seeded_and_leave_small_titles_out(folder):
    data = beir.read_beir(folder)
    sets, left_out = beir.sets_by_title(data, 3, seed=1)
    assert left_out == 1
    assert sorted(d.id for d in sets[0].documents) == ["a1", "a2", "a3"]
    again, _ = beir.sets_by_title(data, 3, seed=1)
    assert again == sets


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("queries.jsonl", '{"_id": "q1"}', "line 1: 'text' is missing"),
        ("qrels/test.tsv", "head\nq1 a1 1\n", "line 2: expected query-id"),
        ("qrels/test.tsv", "head\nq1\ta1\t--1\n", "line 2: expected query-id"),
        ("qrels/test.tsv", "head\n", "holds no judgements"),
        ("run.trec", "q1 a1 1\n", "line 1: expected 'query Q0"),
        ("run.trec", "q1 Q0 zz 1 1.0 x\nq2 Q0 b1 1 1.0 x\n", "candidate zz of query q1"),
        ("run.trec", "q1 Q0 a1 1 1.0 x\n", "query q2 has no candidates"),
    ],
)
def test_malformed_data_is_named(folder, name, content, words):
    (folder / name).write_text(content)
    with pytest.raises(InputError, match=words):
        beir.sets_from_candidates(beir.read_beir(folder), beir.read_candidates(folder / "run.trec"), None)


def test_a_folder_without_data(tmp_path):
    with pytest.raises(InputError, match=r"neither corpus\.jsonl nor"):
        beir.read_beir(tmp_path)


def test_former_names_work():
    assert (former.pools_by_title, former.pools_from_candidates) == (beir.sets_by_title, beir.sets_from_candidates)
    assert Pool is CandidateSet
    work = Work([CandidateSet("q", "?", ())])
    assert work.pools is work.candidate_sets
