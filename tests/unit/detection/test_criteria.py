"""Criteria: by hand, against a known measure, on a planted head; and one that a test adds."""

from __future__ import annotations

import json

import ir_measures
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qr_core import Example, HeadSet, InputError, detect_heads
from qr_core.detection import CRITERIA, Criterion, criteria
from tests.unit.detection.planted import EXAMPLES, PLANTED


@pytest.mark.parametrize("criterion", ["qrscore", "ndcg", "contrastive"])
@pytest.mark.parametrize("calibrated", [True, False])
def test_each_criterion_finds_the_planted_head(planted, criterion, calibrated):
    whole, destroyed = planted
    options = {"calibrated": calibrated, "num_heads": 2, "temperature": 0.01, "device": "cpu"}
    found = detect_heads(whole, EXAMPLES, criterion, **options)
    assert found.heads.heads[0][:2] == PLANTED
    lost = detect_heads(destroyed, EXAMPLES, criterion, **options)
    scores = {(layer, head): score for layer, head, score in lost.heads.provenance.scores}
    others = [score for pair, score in scores.items() if pair != PLANTED]
    usual = sum(others) / len(others)
    assert scores[PLANTED] < (found.heads.heads[0][2] + usual) / 2  # no longer apart from the others
    assert len(found.measured) == 12
    assert found.left_out == {}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.permutations(range(12)), min_size=1, max_size=5), st.sets(st.integers(0, 11), min_size=1, max_size=11)
)
def test_ndcg_is_trec_evals(rows, gold):
    found = criteria.ndcg(torch.tensor(rows, dtype=torch.float64), sorted(gold))
    qrels = {"q": {f"d{g}": 1 for g in gold}}
    for value, row in zip(found.tolist(), rows, strict=True):
        run = {"q": {f"d{n}": float(score) for n, score in enumerate(row)}}
        (expected,) = ir_measures.iter_calc([ir_measures.nDCG @ 10], qrels, run)
        assert value == pytest.approx(expected.value, abs=1e-6)


def test_criteria_by_hand():
    scores = torch.tensor([[0.3, 0.1, 0.2], [0.0, 0.0, 0.4]], dtype=torch.float64)
    assert criteria.gold_mass(scores, [0, 2]).tolist() == pytest.approx([0.25, 0.2])
    assert criteria.ndcg(scores, [1]).tolist() == pytest.approx(
        [0.5, 1 / torch.log2(torch.tensor(4.0)).item() * 0 + 0.5]
    )
    e = torch.exp(scores / 0.1)
    expected = [e[0, 0] / e[0].sum(), e[1, 0] / e[1].sum()]
    assert criteria.contrastive(scores, [0], 0.1).tolist() == pytest.approx([float(x) for x in expected])
    tiny = criteria.contrastive(scores, [2], 1e-6)
    assert tiny.tolist() == pytest.approx([0.0, 1.0])


def reciprocal_rank(scores, gold):
    """A criterion that this package does not have: one over the place of the first document that answers."""
    places = scores.argsort(dim=1, descending=True, stable=True)
    found = torch.isin(places, torch.tensor(gold)).double()
    return 1 / (found.argmax(dim=1) + 1)


@pytest.fixture
def reciprocal():
    CRITERIA.add("reciprocal", Criterion(reciprocal_rank, "one over the place of the first that answers"))
    yield "reciprocal"
    CRITERIA.remove("reciprocal")


def test_a_criterion_of_ones_own(reciprocal, planted, run, tmp_path):
    found = detect_heads(planted[0], EXAMPLES, reciprocal, num_heads=2, device="cpu")
    assert found.heads.heads[0][:2] == PLANTED
    assert found.heads.heads[0][2] == 1.0
    assert found.heads.criterion == reciprocal
    assert found.heads.provenance.calibrated
    assert found.heads.provenance.temperature is None
    rows = [{"query": e.query, "documents": [d.text for d in e.documents], "gold": e.gold} for e in EXAMPLES]
    data, out = tmp_path / "examples.jsonl", tmp_path / "heads.json"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    status, _, err = run(
        "detect", "--criterion", reciprocal, "--data", str(data), "--out", str(out), "--model", str(planted[0]),
        "--num-heads", "2", "--device", "cpu",
    )  # fmt: skip
    assert status == 0, err
    assert HeadSet.load(out).heads == found.heads.heads
    assert (tmp_path / "heads.report.json").exists()


def test_a_criterion_nobody_knows(planted, run, tmp_path):
    with pytest.raises(InputError, match="criterion is 'reciprocal': use one of qrscore, ndcg, contrastive"):
        detect_heads(planted[0], [Example("a", "q", (), ())], "reciprocal")
    data = tmp_path / "examples.jsonl"
    data.write_text("")
    status, _, err = run("detect", "--criterion", "reciprocal", "--data", str(data), "--out", str(tmp_path / "h.json"))
    assert status == 2
    assert "'reciprocal'" in err
    assert "copy-paste" in err


def test_every_criterion_says_what_it_computes():
    assert [(name, entry.calibrated) for name, entry in CRITERIA.items()] == [
        ("qrscore", False), ("ndcg", True), ("contrastive", True),
    ]  # fmt: skip
    assert all(entry.about for entry in CRITERIA.values())
