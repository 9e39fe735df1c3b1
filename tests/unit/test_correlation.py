"""The one rank correlation, against scipy's, ties and all."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from qr_core.correlation import spearman


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.floats(-9, 9)), min_size=2, max_size=20))
def test_it_is_scipys(pairs):
    one, other = zip(*pairs, strict=True)
    if len(set(one)) == 1 or len(set(other)) == 1:
        assert spearman(one, other) is None
    else:
        assert spearman(one, other) == pytest.approx(spearmanr(one, other).statistic)


def test_by_hand():
    assert spearman([0.1, 0.5, 0.3], [1, 9, 2]) == pytest.approx(1)
    assert spearman([0.1, 0.5, 0.3], [9, 1, 2]) == pytest.approx(-1)
    assert spearman([0.1], [9]) is None
    assert spearman([1, 1, 2], [3, 3, 1]) == pytest.approx(-1)  # equal values share a rank, in any order given
