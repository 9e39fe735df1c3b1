"""Run: what a report says. No test asserts a time."""

from __future__ import annotations

import pytest

from qr_core import InputError
from qr_core.benchmark.plan import Plan
from qr_core.benchmark.run import run
from tests.unit.benchmark.small import QUICK, SMALL, in_layout


def test_every_variant_is_measured_and_scores_agree(found):
    assert all(entry["tokens"] <= asked for entry, asked in zip(found["lengths"], (500, 750), strict=True))
    for entry in found["lengths"]:
        assert list(entry["variants"]) == list(QUICK)
        assert entry["sides"] == entry["variants"]
        for variant in entry["variants"].values():
            assert len(variant["wall"]) == len(variant["cpu"]) == 1
            assert variant["seconds"]["min"] <= variant["seconds"]["median"] <= variant["seconds"]["p95"]
            assert variant["seconds"]["p95"] <= variant["seconds"]["max"]
            assert variant["about"]
        assert entry["variants"]["plain"]["of_plain"] == 1
        assert entry["agreement"]["largest_difference_joint_published"] < 1e-5
        assert entry["agreement"]["rank_correlation_joint_published"] == pytest.approx(1)
        assert set(entry["ratios"]) >= {"joint / plain", "published / joint", "second / joint"}
    assert [entry["deepest"] for entry in found["depths"]] == [0, 2]
    assert [entry["documents"] for entry in found["documents"]] == [2, 4]
    assert set(found["length_exponents"]) >= {"plain", "joint"}
    assert set(found["document_exponents"]) == {"independent-cold", "independent-warm"}


def test_forward_passes_and_bytes_held(found):
    variants = found["lengths"][-1]["variants"]
    passes = {name: variant["forward_passes"] for name, variant in variants.items()}
    assert passes["plain"] == 1
    assert passes["published"] == 3  # documents, query, N/A
    assert passes["joint"] > passes["second"] > 0
    tokens = found["lengths"][-1]["tokens"]
    one_copy = tokens * 2 * 2 * 64 * 4  # layers, keys and values, width of the key head, bytes
    for name in ("joint", "second", "independent-cold"):
        assert variants[name]["held_bytes"] > 0.7 * one_copy  # all but the query's
    assert variants["plain"]["held_bytes"] is variants["published"]["held_bytes"] is None


@pytest.mark.parametrize(("layout", "cold", "warm"), [
    ("joint", "joint", "second"),
    ("independent", "independent-cold", "independent-second"),
])  # fmt: skip
def test_a_hundred_queries_beside_one_in_either_layout(layout, cold, warm):
    report = run(in_layout(layout), Plan((300,), ("many",), repeats=1, memory=False))
    (entry,) = report["lengths"]
    assert report["conditions"]["layout"] == layout
    assert set(entry["variants"]) == {cold, warm, "many", "many-warm"}
    ratios = {said: ratio for said, ratio in entry["ratios"].items() if said.startswith("100 queries")}
    assert set(ratios) - {"100 queries / joint"} == {
        "100 queries / 1, nothing encoded before",
        "100 queries / 1, documents encoded before",
    }
    seconds = {name: variant["wall"][0] for name, variant in entry["variants"].items()}
    assert ratios["100 queries / 1, nothing encoded before"] == pytest.approx(seconds["many"] / seconds[cold])
    assert ratios["100 queries / 1, documents encoded before"] == pytest.approx(seconds["many-warm"] / seconds[warm])
    passes = {name: variant["forward_passes"] for name, variant in entry["variants"].items()}
    assert passes["many"] > passes["many-warm"] >= passes[warm] > 0


def test_no_length_but_other_sweeps():
    report = run(SMALL, Plan((), QUICK, documents=(1,), repeats=1, memory=False))
    assert report["lengths"] == report["depths"] == []
    assert set(report["length_exponents"].values()) == {None}
    assert report["documents"][0]["documents"] == 1
    with pytest.raises(InputError, match="at least 256 tokens"):
        run(SMALL, Plan((), QUICK, depths=(1,)))
