"""Needle grids: a needle is never cut, and its passage is the only gold one."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qr_core import InputError
from qr_core.detection.needles import NEEDLES, Needle, default_haystack
from qr_core.evaluation.data.niah import needle_grid
from qr_core.evaluation.work import Expected

SENTENCES = [
    f"Sentence {n} tells of the weather over the {c} hills in spring." for n, c in enumerate("abcdefghij" * 40)
]


HAYSTACK = "\n\n".join(" ".join(SENTENCES[n : n + 5]) for n in range(0, len(SENTENCES), 5))


def words_of(text: str) -> int:
    return len(text.split())


def test_a_grid_of_needles():
    asked: Counter[str] = Counter()

    def count(text: str) -> int:
        asked[text] += 1
        return words_of(text)

    lengths, depths = (500, 1000, 8000), (0.0, 0.5, 1)
    work = needle_grid(HAYSTACK, NEEDLES[:2], lengths, depths, count)
    cells = work.grid
    assert len(work.candidate_sets) == len(cells) == 2 * 3 * 3
    assert [candidates.query_id for candidates in work.candidate_sets[:3]] == [
        "n0-l500-d0",
        "n1-l500-d0",
        "n0-l500-d0.5",
    ]
    assert cells["n1-l8000-d0.5"] == (8000, 0.5)
    for candidates in work.candidate_sets:
        length, depth = cells[candidates.query_id]
        needle = NEEDLES[int(candidates.query_id[1])]
        assert candidates.query == needle.question
        assert work.expected[candidates.query_id] == Expected(needle.question, needle.answer, f"{length} tokens")
        (gold,) = work.qrels[candidates.query_id]
        holding = [document.id for document in candidates.documents if needle.sentence in document.text]
        assert holding == [gold]
        assert int(gold) / (len(candidates.documents) - 1) == pytest.approx(depth, abs=0.15)
        assert 0.85 * length <= sum(words_of(document.text) for document in candidates.documents) <= length
        assert all(words_of(document.text) <= 130 for document in candidates.documents)
    assert max(asked.values()) == 1
    assert max(map(words_of, asked)) < 30
    (note,) = work.notes
    assert "about 5200 tokens: it is repeated for lengths of 8000" in note


def test_one_passage_is_said_to_be_no_ranking():
    work = needle_grid(HAYSTACK, NEEDLES[:1], (80, 500), (0.5,), words_of)
    assert work.notes == ("texts of 80 tokens are one passage: every ranking of them is right",)


@pytest.mark.parametrize(
    "sentence",
    [
        "Mr. J. Lind of St. Orme keeps 3.5 geese. He calls them No. 1 to No. 4. They bite.",
        "  The geese of Orme bite. \n",
        "One goose bites.\n\nTwo geese bite.\n\nThree geese flee.",
        " ".join(["The geese of Orme bite everyone who comes near the pond."] * 40),
    ],
)
@pytest.mark.parametrize("haystack", [HAYSTACK, "no full stop " * 900], ids=["sentences", "no sentences"])
def test_a_needle_is_never_cut(sentence, haystack):
    depths = [n / 20 for n in range(21)]
    work = needle_grid(haystack, [Needle(sentence, "Who bites?", "geese")], (1500,), depths, words_of)
    for candidates in work.candidate_sets:
        (gold,) = work.qrels[candidates.query_id]
        assert [d.id for d in candidates.documents if sentence.strip() in d.text] == [gold]
        assert not [d for d in candidates.documents if d.id != gold and ("goose" in d.text or "geese" in d.text)]


@settings(deadline=None, max_examples=60)
@given(haystack=st.text(st.sampled_from("ab .\n\ud800é"), min_size=1, max_size=600), depth=st.floats(0, 1))
def test_any_haystack_has_one_gold_passage(haystack, depth):
    needle = NEEDLES[2]
    try:
        work = needle_grid(haystack, [needle], (400,), (depth,), words_of)
    except InputError as error:
        assert "haystack is blank" in str(error)  # noqa: PT017
        return
    (candidates,) = work.candidate_sets
    (gold,) = work.qrels[candidates.query_id]
    assert [d.id for d in candidates.documents if needle.sentence in d.text] == [gold]
    assert [d.id for d in candidates.documents] == [str(n) for n in range(len(candidates.documents))]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"haystack": " "}, "the haystack is blank"),
        ({"haystack": f"x. {NEEDLES[0].sentence} y."}, "the haystack holds needle 0 already"),
        ({"needles": []}, "no needles"),
        ({"needles": [Needle(" ", "Who?", "x")]}, "needle 0 is blank"),
        ({"lengths": []}, "no lengths"),
        ({"lengths": [0]}, "a length is 0: use a whole number from 1"),
        ({"lengths": [15]}, "there is no room for a sentence around the needle"),
        ({"lengths": [500, 500]}, "length 500 at depth 0.5 is asked for twice"),
        ({"depths": []}, "no depths"),
        ({"depths": [1.1]}, "a depth is 1.1: use a number from 0 to 1"),
        ({"depths": [float("nan")]}, "a depth is nan"),
        ({"depths": [0.5, 0.5000000001]}, "asked for twice"),
    ],
)
def test_grids_that_make_no_sense(changes, words):
    given = {"haystack": HAYSTACK, "needles": NEEDLES[:1], "lengths": [500], "depths": [0.5]} | changes
    with pytest.raises(InputError, match=words):
        needle_grid(**given, count=words_of)


def test_the_haystack_in_the_package():
    work = needle_grid(default_haystack(), NEEDLES, (1000,), (0, 1), words_of)
    assert len(work.candidate_sets) == len(work.grid) == 8
