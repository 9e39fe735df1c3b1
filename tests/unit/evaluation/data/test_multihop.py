"""HotpotQA, 2WikiMultiHopQA and MuSiQue: every accepted form, and what is malformed."""

from __future__ import annotations

import pytest

from qr_core import Document, InputError
from qr_core.evaluation.data.multihop import NOT_SAID, read_multihop
from qr_core.evaluation.work import Expected
from tests.unit.evaluation.data.samples import COLUMNS, HOTPOT, MUSIQUE, save


@pytest.mark.parametrize("row", [HOTPOT, COLUMNS], ids=["rows", "columns"])
@pytest.mark.parametrize(("name", "form"), [("a.json", "list"), ("a.json.gz", "list"), ("a.txt", "lines")])
def test_hotpot(tmp_path, row, name, form):
    work = read_multihop(save(tmp_path / name, [row], form))
    (candidates,) = work.candidate_sets
    assert (candidates.query_id, candidates.query) == ("h1", HOTPOT["question"])
    assert candidates.documents == (
        Document("The bridge has six arches. Tobias Wren built it.", "Ellin bridge", "0"),
        Document("An oven is hot.", "Ovens", "1"),
        Document("Tobias Wren was born in Torvik.", "Tobias Wren", "2"),
    )
    assert work.qrels == {"h1": {"0": 1, "2": 1}}
    assert work.expected == {"h1": Expected(HOTPOT["question"], "Torvik", "bridge")}
    assert work.notes == ()


@pytest.mark.parametrize(("name", "form"), [("a.jsonl", "lines"), ("a.jsonl.gz", "lines"), ("a.json", "list")])
def test_musique(tmp_path, name, form):
    twin = MUSIQUE | {"answerable": False}
    work = read_multihop(save(tmp_path / name, [MUSIQUE, twin], form))
    assert [document.id for document in work.candidate_sets[0].documents] == ["0", "1", "2"]
    assert [document.title for document in work.candidate_sets[0].documents] == ["Keeper", "Keeper", "Moss"]
    assert work.qrels == {MUSIQUE["id"]: {"0": 1, "2": 1}}  # the other passage called Keeper supports nothing
    assert work.expected[MUSIQUE["id"]] == Expected(MUSIQUE["question"], "Ida", "2 hops")
    unanswerable = work.expected[f"{MUSIQUE['id']}/unanswerable"]
    assert (unanswerable.abstain, unanswerable.answer) == (True, NOT_SAID)
    assert "1 questions are marked unanswerable" in work.notes[0]


def test_one_file_may_hold_both_and_equal_contexts_are_shared(tmp_path):
    other = HOTPOT | {"id": "h2", "question": "How many arches are there?", "answer": "six"}
    other.pop("_id")
    work = read_multihop(save(tmp_path / "a", [HOTPOT, MUSIQUE, other]))
    assert [candidates.query_id for candidates in work.candidate_sets] == ["h1", "h2", MUSIQUE["id"]]
    assert work.candidate_sets[0].documents is work.candidate_sets[1].documents


def test_all_passages_of_a_supporting_title_are_gold(tmp_path):
    row = HOTPOT | {"context": [*HOTPOT["context"], ["Tobias Wren", ["Another man of that name."]]]}
    assert read_multihop(save(tmp_path / "a", [row])).qrels == {"h1": {"0": 1, "2": 1, "3": 1}}


PARAGRAPH = MUSIQUE["paragraphs"][0]


@pytest.mark.parametrize(
    ("row", "change", "words"),
    [
        (HOTPOT, {"supporting_facts": []}, r"a\.json, entry 1: no passage is marked as supporting, as in a test set"),
        (HOTPOT, {"supporting_facts": None}, "no passage is marked as supporting"),
        (HOTPOT, {"supporting_facts": [["Nobody", 0]]}, "entry 1: the supporting passage 'Nobody' is not in its"),
        (HOTPOT, {"supporting_facts": ["Ovens"]}, "'supporting_facts' must be a list of"),
        (HOTPOT, {"supporting_facts": [[None, 0]]}, "'title' must be a string"),
        (COLUMNS, {"supporting_facts": {"title": []}}, "no passage is marked"),
        (HOTPOT, {"context": []}, "'context' is empty"),
        (HOTPOT, {"context": "x"}, "'context' must be a list"),
        (HOTPOT, {"context": [["Ellin bridge"]]}, "passage 0 of 'context' must be"),
        (HOTPOT, {"context": [["Ellin bridge", [3]]]}, "passage 0 of 'context' has a sentence"),
        (COLUMNS, {"context": {"title": ["a"], "sentences": []}}, "1 titles but 0 lists"),
        (HOTPOT, {"_id": "h0"}, "question 'h0' stands twice"),
        (HOTPOT, {"_id": float("nan")}, "'_id' must be a string that is not blank, or a number, but it is not finite"),
        (HOTPOT, {"question": " "}, "'question' must be a string that is not blank, but it is blank"),
        (HOTPOT, {"answer": 3}, "'answer' must be a string that is not blank, but it is of type int"),
        (HOTPOT, {"type": 3}, "'type' must be a string"),
        (MUSIQUE, {"paragraphs": []}, "'paragraphs' is empty"),
        (MUSIQUE, {"paragraphs": {}}, "'paragraphs' must be a list, but it is of type dict"),
        (MUSIQUE, {"paragraphs": [[]]}, "paragraph 0: it is no object"),
        (MUSIQUE, {"paragraphs": [{"title": "x"}]}, "paragraph 0: 'paragraph_text' is missing"),
        (MUSIQUE, {"paragraphs": [{"paragraph_text": "x"}]}, "no passage is marked as supporting"),
        (MUSIQUE, {"paragraphs": [PARAGRAPH | {"is_supporting": 1}]}, "paragraph 0: 'is_supporting' must be true"),
        (MUSIQUE, {"answerable": "no"}, "'answerable' must be true or false"),
    ],
)
def test_malformed_multihop_is_named(tmp_path, row, change, words):
    with pytest.raises(InputError, match=words):
        read_multihop(save(tmp_path / "a.json", [HOTPOT | {"_id": "h0"}, row | change]))


def test_a_question_without_passages(tmp_path):
    with pytest.raises(InputError, match=r"a\.jsonl, line 2: it has neither a 'context'"):
        read_multihop(save(tmp_path / "a.jsonl", [HOTPOT, {"id": 1, "question": "Who?"}], "lines"))
