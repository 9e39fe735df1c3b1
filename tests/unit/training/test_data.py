"""Training text: what is read, drawn, held out and left out."""

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
import sys

import pytest
import torch

from qr_core.evaluation.data.examples import read_examples
from qr_core.training import data, overlap, select, train
from tests.unit.training.tiny import write


def test_packs_are_well_formed(sources):
    rng = random.Random(3)
    for _ in range(40):
        pack = sources.packs.draw(rng)
        shape = (len(pack.queries), len(pack.passages))
        assert shape[0] >= 1
        assert 3 <= shape[1] <= 36
        assert len({passage.text for passage in pack.passages}) == shape[1]
        assert pack.lexical.shape == pack.golds.shape == shape
        assert pack.lexical.dtype == torch.float32
        assert pack.golds.any(dim=1)[pack.label_weights > 0].all()


def test_held_out_text_is_not_trained_on(sources):
    rng = random.Random(4)
    held = {p.text for p in sources.collection.passages if data.held_out(p)}
    asked = {q.text for q in sources.collection.queries if q.asked and data.held_out(q)}
    assert held
    assert asked
    for _ in range(40):
        pack = sources.packs.draw(rng)
        assert held.isdisjoint(passage.text for passage in pack.passages)
        assert asked.isdisjoint(pack.queries)
    assert not asked.isdisjoint(query for _ in range(10) for query in sources.held_out.draw(rng).queries)


def test_the_same_files_give_the_same_queries(training_data):
    """In another process too: what is read does not hang on the order of sets."""
    script = (
        "import sys; from qr_core.training import data; from pathlib import Path; print(data.read(Path(sys.argv[1])))"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", script, str(training_data)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in "12"
    ]
    assert runs[0] == runs[1]


def test_meetings_are_read(training_data):
    found = data.read(training_data)
    meetings, asked = (
        json.loads(gzip.decompress((training_data / "qmsum_train" / f"{name}.json.gz").read_bytes()))
        for name in ("meetings", "queries")
    )
    said = {(row["meeting"], p["idx"]): p["paragraph_text"] for row in meetings for p in row["paragraphs"]}
    queries = [query for query in found.queries if query.source == "qmsum" and query.asked]
    for query, row in zip(queries, asked, strict=True):
        assert query.text == row["question"]
        assert {found.passages[place].group for place in query.golds} <= {query.group}
        known = row["gt_docs"] if len(row["gt_docs"]) < 5 else []  # more are left to the teacher
        expected = " ".join(said[row["meeting"], key] for key in known)
        assert " ".join(found.passages[place].text for place in query.golds) == expected
    assert {len(query.golds) for query in queries} == {0, 1, 3}  # a long paragraph is two passages
    assert len({query.group for query in queries}) == len(meetings)


def test_examples_for_detection_are_read_back(sources, tmp_path):
    examples = select.drawn(sources.held_out, 6, seed=1)
    assert len(examples) > 3
    assert all(one.problem() is None for one in examples)
    select.write_examples(examples, tmp_path / "examples.jsonl")
    found, problems = read_examples(tmp_path / "examples.jsonl")
    assert not problems
    told = [(one.id, one.query, [(d.title, d.text) for d in one.documents], one.gold) for one in examples]
    assert [(one.id, one.query, [(d.title, d.text) for d in one.documents], one.gold) for one in found] == told


def test_no_data_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"qa\.jsonl\.gz"):
        data.read(tmp_path)


def test_neighbours_leave_answers_out(sources):
    for near in sources.packs.near:
        assert any(near)
        for query, places in zip(sources.collection.queries, near, strict=True):
            assert set(places).isdisjoint(query.golds)
            assert all(sources.collection.passages[place].source == query.source for place in places)


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
