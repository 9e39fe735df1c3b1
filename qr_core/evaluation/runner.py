"""Runner: hands pools to systems, keeps what each found and how long it took, and goes on after failures.

Knows nothing of how systems rank or what their results are worth.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from qr_core.errors import ContextLengthError, GenerationError, NonFiniteError
from qr_core.evaluation.journal import Journal
from qr_core.evaluation.work import Pool

Step = Callable[[], Any]
Handle = Callable[[Sequence[Pool]], Iterable[dict[str, Any]]]
"""From pools that share their documents to a record for each, in their order."""
FAILURES = (ContextLengthError, GenerationError, NonFiniteError)
"""What costs one query and not the run."""
PATIENCE = 5
"""Failures in a row after which the rest is not tried: a server that is down would fail every query, slowly."""


@dataclass
class Found:
    """What a system did.

    Attributes
    ----------
    records : dict
        By query id; each has `seconds` and `peak_memory` (bytes; None where it cannot be told) beside the results.
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
    return re.sub(r"[^A-Za-z0-9.]+", "-", system).strip("-")


def run(handle: Handle, pools: Sequence[Pool], journal: Journal, step: Step = lambda: None) -> Found:
    """Let `handle` do what the journal does not have yet.

    A query that fails is reported and not kept, so that the next run tries it again.

    Parameters
    ----------
    step : callable
        Called after each query.
    """
    found, in_a_row = Found(journal.records), 0
    for _, group in groupby(pools, key=lambda pool: id(pool.documents)):
        waiting = []
        for pool in group:
            if pool.query_id in journal.records:
                step()
            else:
                waiting.append(pool)
        while waiting and in_a_row < PATIENCE:
            failures, before = len(found.failures), len(journal.records)
            waiting = waiting[_some(handle, waiting, journal, found, step) :]
            in_a_row = 0 if len(journal.records) > before else in_a_row
            in_a_row += len(found.failures) - failures
        found.untried += len(waiting)
    return found


def _some(handle: Handle, pools: Sequence[Pool], journal: Journal, found: Found, step: Step) -> int:
    """Work through `pools` up to the first failure; returns how many are dealt with."""
    reset_peak_memory()
    results: Iterator[dict[str, Any]] | None = None
    for number, pool in enumerate(pools):
        clock = time.perf_counter()
        try:
            results = iter(handle(pools)) if results is None else results
            record = next(results)
        except FAILURES as error:
            found.failures[pool.query_id] = f"{type(error).__name__}: {error}"
            step()
            return number + 1
        seconds = time.perf_counter() - clock
        journal.add(pool.query_id, {**record, "seconds": seconds, "peak_memory": peak_memory()})
        step()
    return len(pools)


def reset_peak_memory() -> None:
    """Let `peak_memory` count from now, where the system can."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int | None:
    """Most memory of this process since the reset, in bytes: the GPU's where there is one, else the resident set."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    line = re.search(r"VmHWM:\s*([0-9]+) kB", status)
    return int(line[1]) * 1024 if line else None
