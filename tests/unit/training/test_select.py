"""Examples for the choice of heads."""

from __future__ import annotations

from qr_core.evaluation.data.examples import read_examples
from qr_core.training import select


def test_examples_for_detection_are_read_back(sources, tmp_path):
    examples = select.drawn(sources.held_out, 6, seed=1)
    assert len(examples) > 3
    assert all(one.problem() is None for one in examples)
    select.write_examples(examples, tmp_path / "examples.jsonl")
    found, problems = read_examples(tmp_path / "examples.jsonl")
    assert not problems
    told = [(one.id, one.query, [(d.title, d.text) for d in one.documents], one.gold) for one in examples]
    assert [(one.id, one.query, [(d.title, d.text) for d in one.documents], one.gold) for one in found] == told
