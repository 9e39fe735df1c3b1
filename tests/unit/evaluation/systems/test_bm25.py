"""BM25 over each query's candidates, and its index in other processes."""

from __future__ import annotations

import pickle

from qr_core import Document
from qr_core.evaluation.systems.bm25 import Bm25, bm25_ranker
from qr_core.evaluation.work import CandidateSet
from tests.unit.evaluation.conftest import CORPUS


def test_bm25_ranks_the_pool():
    documents = tuple(Document(row["text"], row["title"], row["_id"]) for row in CORPUS)
    bm25 = bm25_ranker()
    first, second = bm25([CandidateSet("q", "lighthouse", documents), CandidateSet("q", "zebra", documents)])
    assert max(range(4), key=first.__getitem__) == 0
    assert second == [0.0] * 4
    assert list(bm25([CandidateSet("q", "x", (Document(""), Document("")))])) == [[0.0, 0.0]]


def test_bm25_goes_to_other_processes():
    index = Bm25([Document(row["text"], row["title"]) for row in CORPUS])
    copied = pickle.loads(pickle.dumps(index))  # noqa: S301 - made here
    assert copied.scores("the lighthouses") == index.scores("the lighthouses")
    assert max(index.scores("the lighthouses")) > 0
