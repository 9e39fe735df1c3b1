"""Metrics: ir-measures over runs, with bootstrap intervals and paired comparisons.

trec_eval computes them, so: scores are compared in single precision, and equal ones are ordered by document id,
descending (not by the candidates' order); a document that is not judged is not relevant; recall and the ideal list of
nDCG count every judged document of the query, also those that are no candidates. nDCG has linear gain (the grade)
unless exponential gain (2^grade - 1) is asked for.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from qr_core.errors import InputError
from qr_core.evaluation.work import Qrels
from qr_core.files.trec import word

RESAMPLES = 2000
PERMUTATIONS = 9999
BATCH = 512
"""Resamples in memory at a time."""
LARGEST, LARGEST_EXPONENT = 10**6, 30
"""Of a measure's cutoff or least grade, and of grades whose gain is a power of two."""

Run = Mapping[str, Mapping[str, float]]
"""Score of each document, by query id and document id."""
_ALL = re.compile(r"All@([1-9][0-9]*)")
_BETWEEN = re.compile(r",(?![^()]*\))")


def parse(listed: str) -> tuple[str, ...]:
    """Names of measures from a comma-separated list, checked.

    Raises
    ------
    InputError
        When trec_eval does not compute one of them.
    """
    names = tuple(name.strip() for name in _BETWEEN.split(listed) if name.strip())
    for name in names:
        if not _computed(name):
            raise InputError(f"no measure {name!r}: use names such as nDCG@10, R@5, R(rel=2)@5, RR, Success@1, All@2")
    if not names:
        raise InputError("--measures names none")
    return names


def _computed(name: str) -> bool:
    import ir_measures

    try:
        measure = ir_measures.parse_measure(_source(name))
        if not ir_measures.pytrec_eval.supports(measure):
            return False
    except Exception:  # whatever a name that is none raises: there is a dozen of kinds
        return False
    numbers = {key: measure.params[key] for key in ("cutoff", "rel") if key in measure.params}
    # trec_eval ends the process when it is given 0.
    return all(type(number) is int and 1 <= number <= LARGEST for number in numbers.values())


def _source(name: str) -> str:
    found = _ALL.fullmatch(name)
    return f"R@{found[1]}" if found else name


def per_query(
    run: Run, qrels: Qrels, names: Sequence[str], exponential_gain: bool = False
) -> dict[str, dict[str, float]]:
    """Each measure's value for each judged query of `run`, as trec_eval computes it; values that are none are left out.

    Ids are compared as they are written in TREC files (see `trec.word`), so that a run file read back has the same
    values.

    Raises
    ------
    InputError
        When a grade is too large for exponential gain.
    """
    import ir_measures

    queries = {word(query): query for query in run if query in qrels}
    judged = {short: {word(key): grade for key, grade in qrels[query].items()} for short, query in queries.items()}
    scores = {short: {word(key): score for key, score in run[query].items()} for short, query in queries.items()}
    measures = {name: ir_measures.parse_measure(_source(name)) for name in names}
    values: dict[Any, dict[str, float]] = {measure: {} for measure in measures.values()}
    for gains in (False, True):  # the gain must not change what counts as relevant for the other measures
        some = [measure for measure in values if (measure.NAME == "nDCG") is gains]
        grades = _exponential(judged) if gains and exponential_gain else judged
        for metric in ir_measures.pytrec_eval.iter_calc(some, grades, scores) if some and judged else ():
            if math.isfinite(metric.value):
                values[metric.measure][queries[metric.query_id]] = float(metric.value)
    return {
        name: {q: float(v == 1.0) if _ALL.fullmatch(name) else v for q, v in values[measure].items()}
        for name, measure in measures.items()
    }


def _exponential(judged: Qrels) -> dict[str, dict[str, int]]:
    largest = max((grade for grades in judged.values() for grade in grades.values()), default=0)
    if largest > LARGEST_EXPONENT:
        raise InputError(f"a grade is {largest}: exponential gain takes grades up to {LARGEST_EXPONENT}")
    return {query: {key: 2 ** max(0, g) - 1 for key, g in grades.items()} for query, grades in judged.items()}


def summary(values: Mapping[str, float], seed: int = 0) -> dict[str, Any]:
    """Mean of per-query values and its 95% bootstrap interval (percentiles of 2,000 resamples)."""
    from scipy.stats import bootstrap

    sample = np.array([values[query] for query in sorted(values)])
    if not sample.size:
        return {"mean": None, "low": None, "high": None, "queries": 0}
    low = high = mean = float(sample.mean())
    if sample.size > 1:
        rng = np.random.default_rng(seed)
        found = bootstrap(
            (sample,), np.mean, n_resamples=RESAMPLES, method="percentile", batch=BATCH, rng=rng
        ).confidence_interval
        low, high = float(found.low), float(found.high)
    return {"mean": mean, "low": low, "high": high, "queries": int(sample.size)}


def difference(ours: Mapping[str, float], baseline: Mapping[str, float], seed: int = 0) -> dict[str, Any]:
    """Paired comparison over the queries that both have.

    Returns
    -------
    dict
        As `summary`, of the differences, and `p`: two-sided, from 9,999 random changes of their signs (all of them
        where there are fewer), not corrected for the number of comparisons.
    """
    from scipy.stats import permutation_test

    both = sorted(set(ours) & set(baseline))
    found = summary({query: ours[query] - baseline[query] for query in both}, seed)
    if len(both) < 2:
        return {**found, "p": None}
    paired = [np.array([values[query] for query in both]) for values in (ours, baseline)]
    rng = np.random.default_rng(seed)
    tested = permutation_test(
        paired,
        lambda a, b, axis: (a - b).mean(axis=axis),
        permutation_type="samples",
        n_resamples=PERMUTATIONS,
        vectorized=True,
        rng=rng,
        batch=BATCH,
    )
    return {**found, "p": float(tested.pvalue)}
