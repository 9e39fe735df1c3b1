"""Metrics: ir-measures over runs, with bootstrap intervals.

Knows nothing of how a run was made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

MEASURES = {"beir": ("nDCG@10", "R@5"), "longcontext": ("R@3", "R@5", "R@10", "nDCG@10")}
"""By task, in ir-measures' names."""
RESAMPLES = 2000

Run = Mapping[str, Mapping[str, float]]
"""Score of each document, by query id and document id."""


def per_query(run: Run, qrels: Mapping[str, Mapping[str, int]], names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Each measure's value for each query of `run`, as trec_eval computes it.

    nDCG has linear gain, and its ideal list holds every judged document of the query, also those outside the pool.
    """
    import ir_measures

    judged = {query: dict(qrels[query]) for query in run}
    measures = [ir_measures.parse_measure(name) for name in names]
    values: dict[str, dict[str, float]] = {name: {} for name in names}
    for metric in ir_measures.iter_calc(measures, judged, {query: dict(scores) for query, scores in run.items()}):
        values[str(metric.measure)][metric.query_id] = float(metric.value)
    return values


def summary(values: Mapping[str, float], seed: int = 0) -> dict[str, Any]:
    """Mean of per-query values and its 95% bootstrap interval (percentiles of 2,000 resamples)."""
    sample = np.array([values[query] for query in sorted(values)])
    if not sample.size:
        return {"mean": None, "low": None, "high": None, "queries": 0}
    drawn = np.random.default_rng(seed).integers(0, sample.size, (RESAMPLES, sample.size))
    low, high = np.percentile(sample[drawn].mean(axis=1), [2.5, 97.5])
    return {"mean": float(sample.mean()), "low": float(low), "high": float(high), "queries": int(sample.size)}
