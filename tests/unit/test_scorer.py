"""The scorer as callers use it: what it accepts and refuses, the order of its answers, reuse of what it read."""

from __future__ import annotations

import json
import math

import pytest
import torch

from qr_core import ContextLengthError, Document, InputError, QRScorer
from qr_core.attention import prefill, query_pass
from qr_core.prompts.templates import NULL_QUERY
from qr_core.ranking import scoring
from qr_core.reading import joint, layout
from tests.helpers import DOCUMENTS, GOLDEN, QUERY, captured_masses, in_order


@pytest.mark.parametrize(
    ("query", "words"), [("", "empty"), (" \n", "empty"), (None, "NoneType"), (5, "int"), (b"q", "bytes")]
)
def test_unusable_queries(tiny, query, words):
    with pytest.raises(InputError, match=words):
        tiny.rank(query, DOCUMENTS)


@pytest.mark.parametrize(
    ("documents", "words"),
    [
        ("one string", "type str"),
        ({"text": "a"}, "type dict"),
        (None, "NoneType"),
        (["fine", 5], "document 1 is of type int"),
        ([{"title": "t"}], "document 0 has no 'text' field"),
        ([{"text": None}], "document 0: 'text' is of type NoneType"),
        ([{"text": "t", "title": 3}], "document 0: 'title'"),
        ([{"text": "t", "id": [1]}], "document 0: 'id'"),
    ],
)
def test_unusable_documents(tiny, documents, words):
    with pytest.raises(InputError, match=words):
        tiny.rank(QUERY, documents)


@pytest.mark.parametrize("top_k", [0, -1, 1.5, True, "3"])
def test_unusable_top_k(tiny, top_k):
    with pytest.raises(InputError, match="top_k"):
        tiny.rank(QUERY, DOCUMENTS, top_k=top_k)


def test_unusable_order(tiny):
    with pytest.raises(InputError, match="order"):
        tiny.rank(QUERY, DOCUMENTS, order="sideways")


def test_a_query_over_the_context_says_by_how_much():
    small = QRScorer.from_pretrained(GOLDEN / "tiny-llama", "1-1", template="plain", device="cpu")
    overhead = len(small.reader.prompts.build([QUERY], [])[0].ids)
    small._context = overhead + 64
    small.rank(QUERY, DOCUMENTS)
    small._context = overhead + 57
    with pytest.raises(ContextLengthError, match=f"take {overhead} tokens, 7 too many"):
        small.rank(QUERY, DOCUMENTS)


def test_no_documents_load_no_weights():
    fresh = QRScorer.from_pretrained(GOLDEN / "tiny-llama", "1-1", template="plain", device="cpu", dtype="float16")
    ranking = fresh.rank(QUERY, [])
    assert list(ranking) == []
    assert fresh.reader.model.loaded_layers == 0
    assert ranking.to_dict()["hits"] == []


def test_documents_in_every_accepted_form(tiny):
    forms = [DOCUMENTS[0], {"text": DOCUMENTS[1].text, "title": "Bakery", "id": 7}, DOCUMENTS[2].text]
    ranking = tiny.rank(QUERY, iter(forms))
    assert in_order(ranking) == in_order(tiny.rank(QUERY, DOCUMENTS))
    assert {hit.document.id for hit in ranking} == {None, 7}


def test_inputs_are_unchanged(tiny):
    given = [{"text": "a b", "extra": [1]}, {"text": "c"}]
    copy = json.loads(json.dumps(given))
    tiny.rank(QUERY, given)
    assert given == copy


def test_scores_are_plain_floats_and_json_safe(tiny):
    ranking = tiny.rank(QUERY, DOCUMENTS)
    assert all(type(hit.score) is float and math.isfinite(hit.score) for hit in ranking)
    assert all(type(hit.relevance) is float and 0 <= hit.relevance <= 1 for hit in ranking)
    answer = json.loads(json.dumps(ranking.to_dict(), allow_nan=False))
    assert list(answer) == [
        "query",
        "model",
        "heads",
        "calibrated",
        "segments",
        "windows",
        "rounds",
        "layout",
        "retrieval_weight",
        "hits",
    ]
    assert list(answer["hits"][0]) == ["index", "id", "title", "score", "relevance", "round", "segment", "window"]


def test_duplicates_rank_by_position(tiny):
    same = Document("The same words again.", "Same", "same-id")
    ranking = tiny.rank(QUERY, [same, DOCUMENTS[0], same, same])
    assert sorted(hit.index for hit in ranking) == [0, 1, 2, 3]
    assert len({hit.score for hit in ranking}) == 4


def test_ties_keep_the_callers_order(tiny, monkeypatch):
    monkeypatch.setattr(scoring, "score_documents", lambda *_: torch.tensor([1.0, 2.0, 1.0, 2.0]))
    assert [hit.index for hit in tiny.rank(QUERY, ["a", "b", "c", "d"])] == [1, 3, 0, 2]


def test_top_k(tiny):
    every = tiny.rank(QUERY, DOCUMENTS)
    assert tiny.rank(QUERY, DOCUMENTS, top_k=2).hits == every.hits[:2]
    assert tiny.rank(QUERY, DOCUMENTS, top_k=99).hits == every.hits


def test_reversed_order_puts_the_first_document_nearest_the_query(tiny):
    turned = tiny.rank(QUERY, DOCUMENTS, order="reversed")
    given = tiny.rank(QUERY, DOCUMENTS[::-1])
    assert in_order(turned) == in_order(given)[::-1]
    assert in_order(turned) != in_order(tiny.rank(QUERY, DOCUMENTS))


def test_switches(tiny):
    def make(**options):
        return QRScorer.from_pretrained(
            GOLDEN / "tiny-llama", "2-1,4-3,3-5", template="plain", device="cpu", **options
        ).rank(QUERY, DOCUMENTS)

    query, prompt = captured_masses(tiny, QUERY, DOCUMENTS)
    null, _ = captured_masses(tiny, NULL_QUERY, DOCUMENTS)
    for calibrate in (True, False):
        tokens = (query - null if calibrate else query).sum(dim=0)
        for filtered in (True, False):
            expected = []
            for start, end in prompt.document_spans:
                inside = tokens[start:end]
                if filtered:
                    inside = inside[inside > inside.mean() - 2 * inside.std()]
                expected.append(float(inside.sum()))
            found = make(calibrate=calibrate, filter_tokens=filtered)
            assert found.calibrated is calibrate
            assert in_order(found) == pytest.approx(expected, abs=1e-6)


class Counting:
    """Counts calls of a function that it stands in for."""

    def __init__(self, function):
        self.function, self.calls = function, 0

    def __call__(self, *args, **kwargs):
        self.calls += 1
        return self.function(*args, **kwargs)


def test_rank_many_reads_the_same_documents_once(tiny, monkeypatch):
    fills, passes = Counting(prefill.prefill), Counting(query_pass.query_passes)
    monkeypatch.setattr(joint, "prefill", fills)
    monkeypatch.setattr(layout, "query_passes", passes)
    other = [Document("Something else."), DOCUMENTS[0]]
    jobs = [(QUERY, DOCUMENTS), ("Who built it?", DOCUMENTS), ("How many loaves?", DOCUMENTS), (QUERY, other)]
    rankings = tiny.rank_many(jobs)
    assert fills.calls == 2
    assert passes.calls == 2 + 2  # queries over the same documents together, the content-free one before
    for ranking, job in zip(rankings, jobs, strict=True):
        assert in_order(ranking) == pytest.approx(in_order(tiny.rank(*job)), abs=1e-6)


@pytest.mark.parametrize(
    ("jobs", "words"),
    [(None, "NoneType"), ("ab", "type str"), (["moon"], "job 0 is not a pair"), ([(QUERY, ["a"]), 5], "job 1")],
)
def test_unusable_jobs(tiny, jobs, words):
    with pytest.raises(InputError, match=words):
        tiny.rank_many(jobs)


def test_rank_many_checks_every_job_before_the_first_runs(tiny, monkeypatch):
    fills = Counting(prefill.prefill)
    monkeypatch.setattr(joint, "prefill", fills)
    with pytest.raises(InputError, match="empty"):
        tiny.rank_many([(QUERY, DOCUMENTS), ("", DOCUMENTS)])
    assert fills.calls == 0


def test_what_it_runs_on_can_be_seen(tiny):
    assert tiny.model_name == str(GOLDEN / "tiny-llama")
    assert tiny.heads.deepest == 4
    assert tiny.tokenizer.decode(tiny.tokenizer.encode("word", add_special_tokens=False)) == "word"
    assert NULL_QUERY == "N/A"
