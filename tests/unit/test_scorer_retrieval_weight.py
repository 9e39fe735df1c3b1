"""`retrieval_weight`: rankings that the order of the caller's documents counts in."""

from __future__ import annotations

import pytest

from qr_core import InputError, QRScorer
from qr_core.ranking import scoring
from tests.helpers import DOCUMENTS, GOLDEN, QUERY, in_order

MANY = [f"Room {number} is cold and has a view of the yard." for number in range(40)]


@pytest.fixture(scope="module")
def tiny() -> QRScorer:
    return QRScorer.from_pretrained(GOLDEN / "tiny-llama", "2-1,4-3,3-5", template="plain", device="cpu")


def places(ranking) -> list[int]:
    return [hit.index for hit in ranking]


@pytest.mark.parametrize("order", ["given", "reversed"])
def test_the_ends_are_attention_and_the_callers_order(tiny, order):
    plain = tiny.rank(QUERY, MANY[:9], order=order)
    assert plain.retrieval_weight == 0
    assert tiny.with_options(retrieval_weight=0).rank(QUERY, MANY[:9], order=order) == plain
    given = tiny.with_options(retrieval_weight=1.0).rank(QUERY, MANY[:9], order=order)
    assert places(given) == list(range(9)) != places(plain)
    assert in_order(given) == in_order(plain)  # the attention stays what it was
    assert given.to_dict()["retrieval_weight"] == given.retrieval_weight == 1


def test_in_between_relevance_is_the_sum_of_both(tiny):
    plain = {hit.index: hit for hit in tiny.rank(QUERY, DOCUMENTS)}
    found = tiny.with_options(retrieval_weight=0.25).rank(QUERY, DOCUMENTS)
    for hit in found:
        assert hit.relevance == pytest.approx(0.75 * plain[hit.index].relevance + 0.25 / (hit.index + 1) / (11 / 6))
    assert [hit.relevance for hit in found] == sorted((hit.relevance for hit in found), reverse=True)
    assert tiny.with_options(retrieval_weight=0.25).rank(QUERY, DOCUMENTS, top_k=1).hits == found.hits[:1]


def test_the_scale_of_scores_does_not_matter(tiny, monkeypatch):
    half = tiny.with_options(retrieval_weight=0.5)
    before, original = half.rank(QUERY, DOCUMENTS), scoring.score_documents
    monkeypatch.setattr(scoring, "score_documents", lambda *asked: original(*asked) * 1000)
    after = half.rank(QUERY, DOCUMENTS)
    assert places(after) == places(before)
    assert [hit.relevance for hit in after] == pytest.approx([hit.relevance for hit in before])


@pytest.mark.parametrize("order", ["given", "reversed"])
def test_several_rounds(tiny, order):
    """Documents that were left behind have a place as well."""
    short = tiny.with_options(max_prompt_tokens=250)
    plain = short.rank(QUERY, MANY, order=order)
    assert plain.rounds > 1
    for weight in (0.05, 0.5):
        found = short.with_options(retrieval_weight=weight).rank(QUERY, MANY, order=order)
        assert sorted(places(found)) == list(range(40))
        assert [hit.relevance for hit in found] == sorted((hit.relevance for hit in found), reverse=True)
        assert {hit.index: (hit.score, hit.round) for hit in found} == {h.index: (h.score, h.round) for h in plain}
    assert places(short.with_options(retrieval_weight=1).rank(QUERY, MANY, order=order)) == list(range(40))
    # The first document of the caller's gains, whichever round it was left behind in.
    assert places(found).index(0) <= places(plain).index(0)


def test_many_jobs_and_none(tiny):
    half = tiny.with_options(retrieval_weight=0.5)
    turned = DOCUMENTS[::-1]
    rankings = half.rank_many([(QUERY, DOCUMENTS), ("Who built it?", DOCUMENTS), (QUERY, turned)])
    for ranking, (query, documents) in zip(
        rankings, [(QUERY, DOCUMENTS), ("Who built it?", DOCUMENTS), (QUERY, turned)], strict=True
    ):
        assert places(ranking) == places(half.rank(query, documents))
    assert list(half.rank(QUERY, [])) == []


def test_pruning_does_not_use_it(tiny):
    asked = {"max_tokens": 20, "unit": "document"}
    assert tiny.with_options(retrieval_weight=1.0).prune(QUERY, DOCUMENTS, **asked) == tiny.prune(
        QUERY, DOCUMENTS, **asked
    )


@pytest.mark.parametrize("weight", [-0.1, 1.5, float("nan"), "0.5", True, None])
def test_weights_that_are_none(tiny, weight):
    with pytest.raises(InputError, match=r"retrieval_weight is .*: use a number from 0 to 1"):
        tiny.with_options(retrieval_weight=weight)
    with pytest.raises(InputError, match=r"retrieval_weight is .*: use a number from 0 to 1"):
        QRScorer.from_pretrained(GOLDEN / "tiny-llama", "1-1", template="plain", retrieval_weight=weight)
