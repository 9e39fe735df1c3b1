"""CLIPPER: claims and their false twins over the chapters of books, and what is malformed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from qr_core import Document, InputError
from qr_core.evaluation.data.clipper import read_clipper
from tests.unit.evaluation.data.samples import BOOKS, CLAIMS, FLAT, save


@pytest.mark.parametrize("source", ["folder", "flat.json", "flat.json.gz"])
@pytest.mark.parametrize("with_false", [False, True])
def test_clipper(books, source, with_false):
    path = books if source == "folder" else save(books / source, FLAT)
    work = read_clipper(path, with_false)
    ids = ["sea:0", "sea:0/false", "sea:1", "sea:1/false", "land:0", "land:0/false"]
    assert [candidates.query_id for candidates in work.candidate_sets] == [
        key for key in ids if with_false or not key.endswith("/false")
    ]
    assert len({id(candidates.documents) for candidates in work.candidate_sets}) == 2
    assert work.candidate_sets[0].documents[1] == Document("A storm came.", "Chapter 1", "1")
    assert work.qrels == {"sea:0": {"1": 1}, "sea:1": {"0": 1}, "land:0": {"0": 1, "1": 1}}
    true = work.expected["sea:0"]
    assert (true.answer, true.labels, true.unit, true.kind) == ("true", ("true", "false"), "sea:0", "single")
    assert true.question.endswith("A storm comes.")
    assert set(work.expected) == {candidates.query_id for candidates in work.candidate_sets}
    assert len(work.notes) == with_false
    if with_false:
        false = work.expected["sea:0/false"]
        assert (false.answer, false.labels, false.unit, false.kind) == ("false", ("true", "false"), "sea:0", "single")
        assert work.candidate_sets[1].query == "It stays calm."


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"question_false": None}, r"claims\.json, entry 1: 'question_false' must be a string"),
        ({"kind": 3}, r"claims\.json, entry 1: 'kind' must be a string"),
        ({"idx": "sea:0"}, "entry 1: idx 'sea:0' stands twice"),
        ({"idx": "sea:0/false", "book": "sea"}, "entry 1: claim 'sea:0/false' stands twice"),
        ({"idx": [1]}, "entry 1: 'idx' must be a string"),
        ({"book": "air"}, "entry 1: there is no book 'air'"),
        ({"book": {}}, "entry 1: 'book' must be a string"),
        ({"gt_docs": ["7"]}, "entry 1: gold paragraph '7' is not in its context"),
        ({"gt_docs": [[]]}, "entry 1: 'gt_docs' must be a string"),
    ],
)
def test_malformed_claims_are_named(books, change, words):
    save(books / "claims.json", [CLAIMS[0], CLAIMS[1] | change])
    with pytest.raises(InputError, match=words):
        read_clipper(books, True)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([BOOKS[0], BOOKS[0]], r"books\.json\.gz, entry 1: book 'sea' stands twice"),
        (
            [{"paragraphs": []}],
            r"books\.json\.gz, entry 0: 'book' must be a string that is not blank, or a number, but",
        ),
        ([{"book": "sea"}], "book sea: 'paragraphs' is missing or empty"),
        (
            [BOOKS[0] | {"paragraphs": BOOKS[0]["paragraphs"] * 2}, BOOKS[1]],
            "two chapters of its book have the same 'idx'",
        ),
        ([{"book": "sea", "paragraphs": [{"paragraph_text": "x", "title": {}}]}], "paragraph 0: 'title' must be"),
    ],
)
def test_malformed_books_are_named(books, rows, words):
    save(books / "books.json.gz", rows)
    with pytest.raises(InputError, match=words):
        read_clipper(books, False)


def test_folders_of_other_data_and_no_claims(books):
    save(books / "claims.json", [])
    with pytest.raises(InputError, match="holds no claims"):
        read_clipper(books, False)
    (books / "books.json.gz").rename(books / "meetings.json.gz")
    (books / "claims.json").rename(books / "queries.json")
    with pytest.raises(InputError, match=r"does not hold books\.json and claims\.json"):
        read_clipper(books, False)


def test_the_claims_beside_this_repository():
    folder = Path(__file__).parents[5] / "shared/data/eval/longcontext/clipper_dev"
    if not folder.is_dir():
        pytest.skip("the data set is not at hand")
    work = read_clipper(folder, True)
    assert len(work.qrels) == 3612
    assert len(work.candidate_sets) == len(work.expected) == 2 * 3612
    assert len({id(candidates.documents) for candidates in work.candidate_sets}) == 40
    assert Counter(wanted.kind for wanted in work.expected.values()) == {"single": 6210, "multiple": 1014}
