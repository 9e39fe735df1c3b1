"""`tests/paraphrase` is what its README says: answers in other words than their questions', and near misses."""

from __future__ import annotations

import re
from pathlib import Path

from qr_core.evaluation.data.beir import read_beir
from qr_core.files.trec import read_run

FOLDER = Path(__file__).parent / "paraphrase"
WORDS = """
a about after all and any are as at be before by can do does for from get go had has have he her him his how i
if in is it its may me must my no not of off on one or our out she should so than that the their them then
there these they this those to up us was we were what when where which who why will with would you your
"""
EMPTY = set(WORDS.split())
"""Words that mean little by themselves."""


def words(text: str) -> set[str]:
    """Words that mean something, without their endings."""
    return {re.sub(r"(ing|ed|es|s)$", "", word) for word in re.findall(r"[a-z]+", text.lower()) if word not in EMPTY}


def test_answers_share_no_word_with_their_questions_and_near_misses_mostly_do():
    data = read_beir(FOLDER)
    texts = {key: document.text for key, document in data.corpus.items()}
    assert len(data.queries) == 100
    assert len(texts) == 300
    overlaps = 0
    for key, query in data.queries.items():
        number = key.removeprefix("q")
        assert data.qrels[key] == {f"{number}a": 1}
        assert words(query).isdisjoint(words(texts[f"{number}a"])), query
        overlaps += sum(not words(query).isdisjoint(words(texts[f"{number}{near}"])) for near in "bc")
    assert overlaps > 190
    assert all(len(text.split()) <= 25 for text in texts.values())


def test_every_question_has_twenty_candidates_with_its_answer():
    for name, near in (("candidates", False), ("near-misses", True)):
        run = read_run((FOLDER / f"{name}.trec").read_text(), name)
        assert len(run) == 100
        for query, found in run.items():
            number = query.removeprefix("q")
            assert len(set(found)) == len(found) == 20
            assert f"{number}a" in found
            assert all((f"{number}{letter}" in found) == near for letter in "bc")
