"""Long contexts: folders that keep each context once, single files, and what is malformed."""

from __future__ import annotations

import json

import pytest

from qr_core import InputError
from qr_core.evaluation.data import longcontext
from tests.unit.evaluation.conftest import MEETINGS, QUESTIONS


def test_long_contexts_from_a_folder_and_from_one_file(meetings):
    sets, qrels = longcontext.read_long_contexts(meetings)
    assert qrels == {"7": {"0": 1}, "8": {"2": 1}}
    assert sets[0].documents is sets[1].documents
    flat = [question | {"paragraphs": MEETINGS[0]["paragraphs"]} for question in QUESTIONS]
    (meetings / "flat.json").write_text(json.dumps(flat))
    again, judged = longcontext.read_long_contexts(meetings / "flat.json")
    assert judged == qrels
    assert [(p.query, p.documents) for p in again] == [(p.query, p.documents) for p in sets]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"meeting": "m9"}, "entry 1: there is no meeting 'm9'"),
        ({"gt_docs": []}, "entry 1: expected a 'question' and a list 'gt_docs'"),
        ({"gt_docs": ["12"]}, "entry 1: gold paragraph '12' is not in its context"),
        ({"idx": 7}, "entry 1: idx '7' stands twice"),
    ],
)
def test_malformed_long_contexts_are_named(meetings, change, words):
    (meetings / "queries.json").write_text(json.dumps([QUESTIONS[0], QUESTIONS[1] | change]))
    with pytest.raises(InputError, match=words):
        longcontext.read_long_contexts(meetings)
