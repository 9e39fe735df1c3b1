"""Timing: ratios and exponents."""

from __future__ import annotations

import pytest

from qr_core.benchmark import timing


def test_ratios_and_exponents():
    assert timing.ratio([2, 20, 200], [1, 10, 50]) == 2
    sizes = [10, 100, 1000]
    assert timing.exponent(sizes, [0.5 * n**1.7 for n in sizes]) == pytest.approx(1.7)
    assert timing.exponent([10], [1.0]) is None
