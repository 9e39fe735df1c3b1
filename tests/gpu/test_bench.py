"""The benchmark at the size of Llama 3.1 8B; times are printed, not asserted. `pytest -m gpu -s tests/gpu`."""

from __future__ import annotations

import pytest

from qr_core.benchmark.large import SETS, Large, run_large
from qr_core.benchmark.subject import Shape


def check(rows, sets, lengths):
    assert [row["heads"] for row in rows] == [name for name in sets for _ in range(lengths)]
    for row in rows:
        assert row["agreement"]["rank_correlation_joint_published"] > 0.9
        assert all(seconds > 0 for seconds in row["seconds"].values())


@pytest.mark.gpu
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("heads", SETS)
def test_llama_8b(heads, capsys):
    with capsys.disabled():
        rows = run_large(Large(), {heads: SETS[heads]}, print)
    check(rows, [heads], 2)


def test_the_same_code_at_a_small_size(capsys):
    """The published sets in a model with as many layers and heads, but thin; so the GPU's test cannot rot."""
    thin = Shape(layers=32, hidden=512, heads=32, kv_heads=8, intermediate=64, vocabulary=30_522)
    rows = run_large(Large(thin, "cpu", "float32", (400,), repeats=1), SETS, print)
    check(rows, SETS, 1)
    assert [row["expected at most"] for row in rows] == pytest.approx([20 / 32 * 1.05 + 0.03, 17 / 32 * 1.05 + 0.03])
    assert all(row["agreement"]["largest_difference_joint_published"] < 1e-5 for row in rows)
    printed = capsys.readouterr().out
    assert "expected at least" in printed
