"""Two head sets compared."""

from __future__ import annotations

import pytest

from qr_core import HeadSetError
from qr_core.heads import compare
from tests.unit.heads.sets import PAIRS, UNSCORED, scored


def test_two_sets_compared():
    forward, backward = scored(PAIRS), scored(PAIRS[::-1])
    same = compare(forward, forward)
    assert (same.of_first, same.of_second, same.by_chance) == (1.0, 1.0, pytest.approx(2 / 12))
    assert same.rank_correlation == pytest.approx(1.0)
    other = compare(forward, backward)
    assert (other.shared, other.rank_correlation) == ((), pytest.approx(-1.0))
    assert compare(UNSCORED, forward).rank_correlation is None
    assert compare(UNSCORED, forward).shared == ((0, 1),)
    with pytest.raises(HeadSetError, match="different shapes"):
        compare(UNSCORED, UNSCORED.model_copy(update={"config": UNSCORED.config.model_copy(update={"layers": 9})}))
