"""What fewer layers or examples would cost, from a detection's numbers."""

from __future__ import annotations

import random

import pytest
import torch

from qr_core import HeadSet
from qr_core.detection import selection
from qr_core.detection.detect import Detection
from qr_core.detection.measuring import Measured
from qr_core.detection.options import TEMPERATURE
from qr_core.heads.parts import Provenance

SHAPE = {"layers": 3, "heads": 4, "kv_heads": 4, "hidden": 16}
CANDIDATES = tuple((layer, head) for layer in range(3) for head in range(4))
GOOD = {5: 0.5, 6: 0.4, 9: 1.0}  # rows of heads that lean towards the gold document, and by how much


def detection(examples: int = 40, num_heads: int = 2) -> Detection:
    """Heads of noise, but for three that see the gold document; the best of them lies in the deepest layer."""
    torch.manual_seed(0)
    measured = []
    for n in range(examples):
        scores = torch.randn(12, 8) * 0.1
        gold = n % 8
        for row, lean in GOOD.items():
            scores[row, gold] += lean
        measured.append(Measured(str(n), (gold,), scores, scores, scores))
    provenance = Provenance(examples=examples, fingerprint="x", calibrated=True)
    heads = HeadSet(
        model="m", config=SHAPE, template="plain", criterion="qrscore", data="made up",
        heads=[(2, 1, 1.0), (1, 1, 0.5)][:num_heads], provenance=provenance,
    )  # fmt: skip
    return Detection(heads, CANDIDATES, measured, {})


def test_depth_trade_off():
    rows = selection.depth_trade_off(detection())
    assert [row.deepest for row in rows] == [0, 1, 2]
    assert [row.share for row in rows] == pytest.approx([1 / 3, 2 / 3, 1])
    assert rows[0].ndcg.mean < 0.6 < 0.9 < rows[1].ndcg.mean <= rows[2].ndcg.mean
    assert rows == selection.depth_trade_off(detection())  # the same seed
    assert selection.depth_trade_off(detection(1)) == []


def test_more_examples_select_better_heads():
    rows = selection.examples_curve(detection(40))
    assert [row.examples for row in rows] == [4, 8, 16, 32]
    assert rows[-1].overlap.mean == 1.0
    assert all(row.ndcg.mean > 0.9 for row in rows)
    noise = detection(40)
    for one in noise.measured:
        one.raw[:] = one.calibrated[:] = one.filtered[:] = torch.rand(12, 8)
    assert selection.examples_curve(noise)[0].overlap.mean < 0.8
    assert selection.examples_curve(noise)[0].overlap.deviation > 0


def test_split_halves():
    spread, chance = selection.split_half_overlap(detection())
    assert spread.mean == 1.0
    assert chance == pytest.approx(2 / 12)
    assert selection.split_half_overlap(detection(1)) is None
    one, other = selection.halves(7, random.Random(0))
    assert sorted(one + other) == list(range(7))
    assert abs(len(one) - len(other)) == 1


def test_the_rule_of_a_detection():
    assert selection.Rule.of(detection()) == selection.Rule("qrscore", True, TEMPERATURE, 2)
