"""LongMemEval: sessions as documents, and what is malformed."""

from __future__ import annotations

import pytest

from qr_core import Document, InputError
from qr_core.evaluation.data.longmemeval import read_longmemeval
from qr_core.evaluation.work import Expected
from tests.unit.evaluation.data.samples import LONGMEMEVAL, save


@pytest.mark.parametrize(("name", "form"), [("a.json", "list"), ("a.json.gz", "list"), ("a.jsonl", "lines")])
def test_longmemeval(tmp_path, name, form):
    work = read_longmemeval(save(tmp_path / name, LONGMEMEVAL, form))
    assert [candidates.query_id for candidates in work.candidate_sets] == ["m1", "m2_abs"]
    assert work.candidate_sets[0].query == "How many herons did I count?"
    assert work.candidate_sets[0].documents == (
        Document("user: Hello.\nassistant: Good day.", "Session of 2031/05/01", "s1"),
        Document("user: I counted seven herons.", "Session of 2031/05/02", "answer_1"),
        Document("", "Session of 2031/05/03", "s1#2"),
    )
    assert work.candidate_sets[0].documents is work.candidate_sets[1].documents
    assert work.qrels == {"m1": {"answer_1": 1}}
    asked = "Today is 2031/05/04 (Sun) 10:00. How many herons did I count?"
    assert work.expected["m1"] == Expected(asked, "7", "single-session-user")
    assert work.expected["m2_abs"].abstain
    assert work.expected["m2_abs"].answer == "Only herons were spoken of."
    assert work.notes == ("1 abstention questions are asked, but have no ranking to measure",)


def test_sessions_of_one_id_are_told_apart_and_all_gold(tmp_path):
    row = LONGMEMEVAL[0] | {"haystack_session_ids": ["a", "a#2", "a"], "answer_session_ids": ["a"]}
    work = read_longmemeval(save(tmp_path / "a", [row]))
    assert [document.id for document in work.candidate_sets[0].documents] == ["a", "a#2", "a#2#"]
    assert work.qrels == {"m1": {"a": 1, "a#2#": 1}}
    assert work.notes == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"answer_session_ids": ["gone"]}, r"a\.json, entry 1: answer session 'gone' is not among"),
        ({"answer_session_ids": []}, "'answer_session_ids' is empty"),
        ({"answer_session_ids": [None]}, "'answer_session_ids' must be a string"),
        ({"haystack_dates": []}, "must be of one length, from 1, but have 3, 0 and 3"),
        ({"haystack_sessions": None}, "'haystack_sessions' must be a list, but it is of type NoneType"),
        ({"haystack_sessions": [[], [], "x"]}, "session 2 must be a list of turns"),
        ({"haystack_sessions": [[], [{"role": "user"}], []]}, "every turn of session 1 must be an object"),
        ({"answer": float("nan")}, "'answer' must be a string that is not blank, or a number, but it is not finite"),
        ({"answer": True}, "'answer' must be a string that is not blank, or a number, but it is of type bool"),
        ({"question_date": 5}, "'question_date' must be a string"),
        ({"question_type": ""}, "'question_type' must be a string"),
        ({"question_id": "m0"}, "question 'm0' stands twice"),
        ({"question_id": None}, "'question_id' must be"),
    ],
)
def test_malformed_longmemeval_is_named(tmp_path, change, words):
    rows = [LONGMEMEVAL[0] | {"question_id": "m0"}, LONGMEMEVAL[0] | change]
    with pytest.raises(InputError, match=words):
        read_longmemeval(save(tmp_path / "a.json", rows))
