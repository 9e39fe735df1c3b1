"""Rank correlation, the one that every report of this package prints."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Values = Sequence[float] | NDArray[np.float64]


def spearman(one: Values, other: Values) -> float | None:
    """Spearman's rank correlation, equal values sharing their mean rank.

    None where it is not defined: for fewer than two values, or where all of one side are equal. The same number as
    `scipy.stats.spearmanr`, which the base installation lacks.
    """
    first, second = _ranks(one), _ranks(other)
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(np.corrcoef(first, second)[0, 1])


def _ranks(values: Values) -> NDArray[np.float64]:
    """Ranks from 0, of shape (values,)."""
    _, inverse, counts = np.unique(np.asarray(values, dtype=np.float64), return_inverse=True, return_counts=True)
    middles: NDArray[np.float64] = np.cumsum(counts) - (counts + 1) / 2
    return middles[inverse]
