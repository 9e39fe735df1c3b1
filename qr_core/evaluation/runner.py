"""Runner: hands candidate sets to systems, keeps what each found and how long it took, and goes on after failures."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch

from qr_core.errors import ENDINGS, ContextLengthError, GenerationError, NonFiniteError, QRHeadError
from qr_core.evaluation.answers.judging import JudgeError
from qr_core.evaluation.journal import Journal
from qr_core.evaluation.work import CandidateSet, Handle
from qr_core.generation import RefusedRequestError
from qr_core.parallel.usage import peak, restart_peak

Step = Callable[[], Any]
FAILURES = (ContextLengthError, GenerationError, NonFiniteError)
"""Errors of this package that cost one query and not the run, as every other error does."""
OF_THE_QUERY = (ContextLengthError, JudgeError, NonFiniteError, RefusedRequestError, torch.OutOfMemoryError)
"""Those of them that say nothing about the next query."""
PATIENCE = 5
"""Other failures in a row after which the rest is not tried: a server that is down would fail every query, slowly."""


@dataclass
class Found:
    """What a system did.

    Attributes
    ----------
    records : dict
        By query id; each has `seconds` and `peak_memory` (bytes; None where it is unknown) beside the results.
    failures : dict of str to str
        Why queries have no record, by id.
    missing : str
        Why the system could not be run at all; empty when it was.
    untried : int
        Queries that were given up after too many failures in a row.
    """

    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    missing: str = ""
    untried: int = 0


def file_name(system: str) -> str:
    """A system's name as a file's."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", system).strip("-.")


def run(handle: Handle, sets: Sequence[CandidateSet], journal: Journal, step: Step = lambda: None) -> Found:
    """Let `handle` do what the journal does not have yet.

    A query that fails is reported and not kept, so that the next run tries it again.

    Parameters
    ----------
    step : callable
        Called after each query.
    """
    found, in_a_row = Found(journal.records), 0
    for _, group in groupby(sets, key=lambda candidates: id(candidates.documents)):
        waiting = []
        for candidates in group:
            if candidates.query_id in journal.records:
                step()
            else:
                waiting.append(candidates)
        while waiting and in_a_row < PATIENCE:
            done, error = _until_failure(handle, waiting, journal, step)
            if error is not None:
                found.failures[waiting[done].query_id] = f"{type(error).__name__}: {error}"
                in_a_row = (0 if done else in_a_row) + (not isinstance(error, OF_THE_QUERY))
                done += 1
                step()
            else:
                in_a_row = 0
            waiting = waiting[done:]
        found.untried += len(waiting)
    # In the order of the work, whatever was done first: what is written does not tell of interruptions.
    ids = [candidates.query_id for candidates in sets]
    found.records = {query_id: journal.records[query_id] for query_id in ids if query_id in journal.records}
    return found


def _until_failure(
    handle: Handle, sets: Sequence[CandidateSet], journal: Journal, step: Step
) -> tuple[int, BaseException | None]:
    """Work through `sets`; returns how many are done, and why the next one is not."""
    device = "cuda" if torch.cuda.is_available() else "cpu"  # whose memory counts
    restart_peak(device)
    results: Iterator[dict[str, Any]] | None = None
    for number, candidates in enumerate(sets):
        clock = time.perf_counter()
        try:
            results = iter(handle(sets)) if results is None else results
            record = next(results)
        except ENDINGS:
            raise
        except BaseException as error:
            if isinstance(error, (QRHeadError, ImportError)) and not isinstance(error, FAILURES):
                raise
            return number, error.with_traceback(None)  # whose frames would hold on to tensors
        seconds = time.perf_counter() - clock
        journal.add(candidates.query_id, {**record, "seconds": seconds, "peak_memory": peak(device)})
        step()
    return len(sets), None


def latency(found: Found) -> dict[str, Any]:
    """Seconds per query (mean, median, 95th percentile) and the most memory, in bytes."""
    seconds = [float(record["seconds"]) for record in found.records.values()]
    peaks = [record["peak_memory"] for record in found.records.values() if record.get("peak_memory")]
    if not seconds:
        return {"seconds_per_query": None}
    tail = statistics.quantiles(seconds, n=20, method="inclusive")[-1] if len(seconds) > 1 else seconds[0]
    return {
        "seconds_per_query": statistics.fmean(seconds),
        "median_seconds": statistics.median(seconds),
        "p95_seconds": tail,
        "peak_memory": max(peaks, default=None),
    }
