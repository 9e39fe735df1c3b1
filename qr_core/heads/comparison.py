"""Comparison of two head sets: which heads they share, and how alike they rank all heads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qr_core.correlation import spearman
from qr_core.errors import HeadSetError
from qr_core.heads.maps import score_grid
from qr_core.heads.pairs import Pair
from qr_core.heads.sets import HeadSet


@dataclass(frozen=True)
class Comparison:
    """Two head sets of one model.

    Attributes
    ----------
    shared : tuple of (layer, head)
        In both.
    of_first, of_second : float
        Their share of each set.
    by_chance : float
        Expected share of the first set if the second were drawn at random.
    rank_correlation : float or None
        Spearman's, over all heads that both judged; None where one did not keep all scores.
    """

    shared: tuple[Pair, ...]
    of_first: float
    of_second: float
    by_chance: float
    rank_correlation: float | None


def compare(first: HeadSet, second: HeadSet) -> Comparison:
    """Overlap of two sets, and how alike they rank all heads.

    Raises
    ------
    HeadSetError
        When they belong to models of different shapes.
    """
    if first.config != second.config:
        raise HeadSetError(f"the sets are for models of different shapes: {first.model} and {second.model}")
    one, other = set(first.pairs()), set(second.pairs())
    shared = tuple(sorted(one & other))
    grids = [score_grid(found).ravel() for found in (first, second) if found.provenance and found.provenance.scores]
    correlation = None
    if len(grids) == 2:
        both = ~np.isnan(grids[0]) & ~np.isnan(grids[1])
        correlation = spearman(grids[0][both], grids[1][both])
    total = first.config.layers * first.config.heads
    return Comparison(shared, len(shared) / len(one), len(shared) / len(other), len(other) / total, correlation)
