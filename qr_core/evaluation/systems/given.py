"""The candidates as they come, as a baseline."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from qr_core.evaluation.options import EvaluationOptions
from qr_core.evaluation.systems.entry import Entry
from qr_core.evaluation.work import CandidateSet


def given_ranker(sets: Sequence[CandidateSet]) -> Iterable[list[float]]:
    """The first of n documents gets n, the last 1. A `Ranker`."""
    for candidates in sets:
        yield [float(place) for place in range(len(candidates.documents), 0, -1)]


def given_entries(_: EvaluationOptions) -> list[Entry]:
    """The one entry."""
    return [Entry("given", {"model": "the candidates as they come"}, lambda: given_ranker)]
