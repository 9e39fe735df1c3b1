"""Orders: the same candidates in several orders, and how much a ranking depends on the order."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np

from qr_core.evaluation.systems.entry import Ranker
from qr_core.evaluation.work import CandidateSet

PREFIX = "qr, order "
"""Names of the systems that differ in order alone begin so."""


def reordered(ranker: Ranker, seed: int) -> Ranker:
    """`ranker`, handed every list of candidates in another order; scores come back in the set's own."""

    def rank(sets: Sequence[CandidateSet]) -> Iterable[list[float]]:
        documents = sets[0].documents
        places = random.Random(f"{seed}:{sets[0].query_id}").sample(range(len(documents)), len(documents))
        shown = tuple(documents[place] for place in places)
        for scores in ranker([replace(candidates, documents=shown) for candidates in sets]):
            back = [0.0] * len(scores)
            for place, score in zip(places, scores, strict=True):
                back[place] = score
            yield back

    return rank


def sensitivity(
    runs: Mapping[str, Mapping[str, Mapping[str, float]]], values: Mapping[str, Mapping[str, Mapping[str, float]]]
) -> dict[str, Any] | None:
    """How much the systems that differ in order alone differ in their results.

    Returns
    -------
    dict or None
        For each measure the mean of each order's mean, their standard deviation, least and most; and `kendall_tau`: the
        rank correlation of a query's ranking in two orders, mean over pairs and queries. None with fewer than two.
    """
    from scipy.stats import kendalltau

    names = [name for name in runs if name.startswith(PREFIX)]
    if len(names) < 2:
        return None
    found: dict[str, Any] = {"orders": len(names)}
    for measure in values[names[0]]:
        means = np.array([np.mean(list(values[name][measure].values())) for name in names])
        spread = {"mean": means.mean(), "deviation": means.std(ddof=1), "least": means.min(), "most": means.max()}
        found[measure] = {key: float(value) for key, value in spread.items()}
    taus = []
    for query in set.intersection(*(set(runs[name]) for name in names)):
        keys = list(runs[names[0]][query])
        rows = [[runs[name][query][key] for key in keys] for name in names]
        taus += [kendalltau(one, other).statistic for one, other in combinations(rows, 2)]
    known = [tau for tau in taus if np.isfinite(tau)]
    return found | {"kendall_tau": float(np.mean(known)) if known else None}
