"""The same candidates in several orders, and how much a ranking depends on the order."""

from __future__ import annotations

import json

import pytest

from qr_core import Document
from qr_core.evaluation.systems.orders import reordered
from qr_core.evaluation.work import CandidateSet


def test_document_order_is_measured(run, beir):
    """Scores come back in the set's own order, and an order-free layout has no spread."""
    sets = [CandidateSet("q", "light", tuple(Document(f"text {n}", id=str(n)) for n in range(6)))]

    def by_id(given):
        for candidates in given:
            yield [float(document.id) for document in candidates.documents]

    def by_place(given):
        for candidates in given:
            yield [float(place) for place in range(len(candidates.documents))]

    assert list(reordered(by_id, 3)(sets)) == [[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]]
    shuffled = next(iter(reordered(by_place, 3)(sets)))
    assert sorted(shuffled) == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert shuffled != sorted(shuffled)
    assert next(iter(reordered(by_place, 4)(sets))) != shuffled
    arguments = [*beir, "--systems", "bm25", "--orders", "3", "--format", "json"]
    status, out, err = run(*arguments, "--model", "embedded-fast", "--layout", "joint")
    assert status == 0, err
    joint = json.loads(out)
    assert joint["orders"]["orders"] == 3
    assert -1 <= joint["orders"]["kendall_tau"] <= 1
    assert joint["systems"]["qr, order 1"]["order"] == "shuffled, seed 1"
    assert joint["systems"]["qr, order 1"]["layout"] == "joint"
    for layout, own in (("late", []), ("independent", ["--model", "embedded-fast"])):
        status, out, err = run(*arguments, *own)
        assert status == 0, err
        apart = json.loads(out)
        assert apart["systems"]["qr, order 2"]["layout"] == layout
        assert apart["orders"]["kendall_tau"] == pytest.approx(1.0)
        assert apart["orders"]["nDCG@10"]["deviation"] == pytest.approx(0.0, abs=1e-9)
