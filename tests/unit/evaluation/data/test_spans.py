"""Exact spans: kept characters are counted, on the command line as well."""

from __future__ import annotations

import json

import pytest

from qr_core import InputError
from qr_core.evaluation.data import spans
from qr_core.text.pruning import Candidate

SPANS = {
    "corpora": [{"corpus_id": "c", "text": "The lighthouse was lit in 1871. Ships wait. " + "Bread is baked. " * 90}],
    "questions": [
        {
            "corpus_id": "c",
            "question": "When was the lighthouse lit?",
            "references": [{"start_index": 0, "end_index": 31}],
        }
    ],
}


def test_kept_characters_are_counted_exactly(tmp_path):
    (tmp_path / "spans.json").write_text(json.dumps(SPANS))
    (corpus,) = spans.read_spans(tmp_path)
    gold = corpus.questions[0][1]
    ranked = [Candidate(0, 0, 31, 2.0, 0.5), Candidate(0, 32, 43, 1.0, 0.5)]
    assert spans.measure(corpus, gold, ranked, 31) == {"recall": 1.0, "precision": 1.0, "IoU": 1.0}
    found = spans.measure(corpus, ((10, 31),), ranked, 500)
    assert found == pytest.approx({"recall": 1.0, "precision": 21 / 42, "IoU": 21 / 42})
    assert spans.measure(corpus, gold, ranked[1:], 500)["recall"] == 0.0


def test_spans_on_the_command_line(run, tmp_path):
    (tmp_path / "spans.json").write_text(json.dumps(SPANS))
    status, printed, _ = run(
        "eval", "--task", "spans", "--data", str(tmp_path), "--format", "json", "--out", str(tmp_path / "out")
    )
    assert status == 0
    systems = json.loads(printed)["systems"]
    assert systems["bm25"]["recall@500"]["mean"] == 1.0
    assert systems["qr"]["recall@500"]["mean"] == 1.0
    status, _, err = run("eval", "--task", "spans", "--data", str(tmp_path), "--systems", "dense")
    assert status == 2
    assert "--dense-model" in err


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ({"start_index": 5, "end_index": 5}, "has no span inside its text"),
        ({"start_index": 0, "end_index": 10**6}, "has no span inside its text"),
        ({"start": 0}, "does not hold corpora and questions"),
    ],
)
def test_malformed_spans_are_named(tmp_path, reference, words):
    question = SPANS["questions"][0] | {"references": [reference]}
    (tmp_path / "spans.json").write_text(json.dumps(SPANS | {"questions": [question]}))
    with pytest.raises(InputError, match=words):
        spans.read_spans(tmp_path)
