"""Training text that stands in evaluation text."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from qr_core.training import data, overlap, train
from tests.unit.training.tiny import write

PLANTED = "the harbour master keeps a brass telescope in the third drawer of his oak desk by the window"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (PLANTED, True),
        (f"Once, they say: {PLANTED.upper()}!", True),
        (" ".join(PLANTED.split()[:13]), True),
        (" ".join(PLANTED.split()[:12]) + " and more words that stand nowhere else", False),
        ("a short text", True),
        ("a short text and more", False),
        ("", False),
    ],
)
def test_overlap_is_found(text, found):
    assert overlap.Evaluation([PLANTED + " and so on", "A short text."]).holds(text) is found


def test_planted_overlap_fails_the_check_and_is_left_out_of_training(training_data, initial_model, tmp_path):
    collection = data.read(training_data)
    evaluation = tmp_path / "evaluation" / "set"
    evaluation.mkdir(parents=True)
    write(evaluation / "corpus.jsonl.gz", [{"_id": "d1", "text": "nothing of the kind stands here"}])
    command = [sys.executable, "-m", "qr_core.training.overlap", "--data", str(training_data), "--evaluation"]
    clean = subprocess.run([*command, str(evaluation)], capture_output=True, text=True, check=False)
    assert (clean.returncode, clean.stderr) == (0, "")
    planted = next(i for i, passage in enumerate(collection.passages) if not data.held_out(passage))
    words = collection.passages[planted].text.split()
    asked = next(i for i, query in enumerate(collection.queries) if query.asked and not data.held_out(query))
    questions = ["So: " + " ".join(words[5:20]), collection.queries[asked].text]
    (evaluation / "queries.json").write_text(json.dumps([{"question": text} for text in questions]))
    dirty = subprocess.run([*command, str(evaluation)], capture_output=True, text=True, check=False)
    assert dirty.returncode == 1
    assert " ".join(words)[:60] in dirty.stdout
    sources = train.Sources(training_data, initial_model, tmp_path / "cache", [evaluation])
    assert planted not in sources.packs.allowed
    seeds = {i for kind in sources.packs.seeds.values() for i in kind}
    assert seeds
    assert all(planted not in sources.packs.queries[i].golds for i in seeds)
    assert asked not in seeds
