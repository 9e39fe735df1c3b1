"""Evaluation: every system does the same work; the results become one report.

Knows nothing of files of data, of the command line, or of how the report is shown.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from qr_core.errors import InputError, ModelLoadError
from qr_core.evaluation import metrics
from qr_core.evaluation.answering import Outcome, accuracy, answered
from qr_core.evaluation.journal import Journal
from qr_core.evaluation.judging import Judge
from qr_core.evaluation.lineup import Entry
from qr_core.evaluation.runner import Found, Handle, file_name, run
from qr_core.evaluation.work import Expected, Pool, Work
from qr_core.generation import Generator
from qr_core.pruning import Count

Track = Callable[[str, int], AbstractContextManager[Callable[[], None]]]
"""From a name and a number of queries to a context with a function to call after each."""
PACKAGES = ("qrhead", "torch", "transformers", "numpy", "ir-measures", "bm25s", "sentence-transformers")


@dataclass
class Results:
    """What an evaluation found.

    Attributes
    ----------
    report : dict
        Plain data: what `metrics.json` holds.
    runs : dict
        Scores by system, query and document.
    values : dict
        Per-query values by system, measure and query.
    seconds : dict
        By system and query.
    """

    report: dict[str, Any]
    runs: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    values: dict[str, dict[str, Mapping[str, float]]] = field(default_factory=dict)
    seconds: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Answering:
    """How questions are answered: by whom, from how many documents, and who tells whether a reply is right."""

    generator: Generator
    judge: Judge | None
    top_k: int
    max_new_tokens: int
    name: str  # the generator's before it is asked: an address learns its model's later, and a resumed run never

    def answer(self, pool: Pool, scores: Sequence[float] | None, expected: Expected) -> Outcome:
        """As `answering.answered`."""
        return answered(pool, scores, expected, self.generator, self.judge, self.top_k, self.max_new_tokens)

    def record(self) -> dict[str, Any]:
        """Plain data for the report."""
        judge = None if self.judge is None else self.judge.record()
        about = {"generator": self.name, "judge": judge}
        return {**about, "top_k": self.top_k, "max_new_tokens": self.max_new_tokens}


@dataclass(frozen=True)
class Plan:
    """How results are counted.

    Attributes
    ----------
    measures : sequence of str
        In ir-measures' names; ignored where `measured` says what counts.
    exponential_gain : bool
        Of nDCG; see `metrics.per_query`.
    baseline : str, optional
        What the others are compared to.
    seed : int
    measured : callable, optional
        From a system to a handle whose records hold `values`, for tasks that do not rank documents.
    count : callable, optional
        Tokens of a text, for the rate at which systems go through queries and candidates.
    answering : Answering, optional
        Let a generator answer from what each system ranks first.
    """

    measures: Sequence[str] = ()
    exponential_gain: bool = False
    baseline: str | None = None
    seed: int = 0
    measured: Callable[[Entry], Handle] | None = None
    count: Count | None = None
    answering: Answering | None = None


def evaluate(work: Work, entries: Sequence[Entry], plan: Plan, folder: Path | None, track: Track) -> Results:
    """Let every system do the work, going on where an earlier run in `folder` stopped.

    Raises
    ------
    InputError
        When no system can be run, or the folder holds results of other work.
    """
    results = Results({"systems": {}})
    base = {"work": fingerprint(work.pools), "versions": versions()}
    for entry in entries:
        row = results.report["systems"][entry.name] = dict(entry.about)
        place = None if folder is None else folder / "work" / file_name(entry.name)
        found = _ranked(entry, work, plan, Journal(place, {**base, **entry.about}), track)
        if found.missing:
            row["missing"] = found.missing
            continue
        if entry.make is not None:
            _count(results, entry.name, row, found, work, plan)
        if entry.replies is not None:
            row["replies"] = entry.replies()
        if plan.answering is not None:
            answers = None if place is None else place.with_name(f"{place.name}.answers")
            journal = Journal(answers, {**base, **entry.about, "answering": plan.answering.record()})
            _answer(results, entry.name, row, found, work, plan, plan.answering, journal, track)
    missing = [str(row["missing"]) for row in results.report["systems"].values() if "missing" in row]
    if len(missing) == len(entries):
        raise InputError(f"no system can be run: {missing[0]}")
    _compare(results, plan)
    return results


def _ranked(entry: Entry, work: Work, plan: Plan, journal: Journal, track: Track) -> Found:
    if entry.missing:
        return Found(missing=entry.missing)
    if entry.make is None:
        return Found()
    try:
        with track(entry.name, len(work.pools)) as step:
            return run(plan.measured(entry) if plan.measured else _scores(entry), work.pools, journal, step)
    except ModelLoadError as error:
        return Found(missing=str(error))


def _scores(entry: Entry) -> Handle:
    system: Any = None

    def handle(pools: Sequence[Pool]) -> Iterable[dict[str, Any]]:
        nonlocal system
        if system is None and entry.make is not None:
            system = entry.make()
        return ({"scores": scores} for scores in system(pools))

    return handle


def _count(results: Results, name: str, row: dict[str, Any], found: Found, work: Work, plan: Plan) -> None:
    """Metrics and latency of one system, into its row."""
    if plan.measured:
        per_query = [(key, record["values"]) for key, record in found.records.items()]
        values = {m: {key: value[m] for key, value in per_query} for m in (per_query[0][1] if per_query else ())}
    else:
        done = [pool for pool in work.pools if pool.query_id in found.records]
        ranked = {
            p.query_id: {str(d.id): s for d, s in zip(p.documents, found.records[p.query_id]["scores"], strict=True)}
            for p in done
        }
        results.runs[name] = ranked
        values = metrics.per_query(ranked, work.qrels, plan.measures, plan.exponential_gain)
    results.values[name] = dict(values)
    row.update({measure: metrics.summary(found_values, plan.seed) for measure, found_values in values.items()})
    seconds = results.seconds[name] = {key: float(record["seconds"]) for key, record in found.records.items()}
    row.update(latency(found))
    if plan.count is not None and sum(seconds.values()) > 0:
        tokens = token_counts(work.pools, plan.count)
        row["tokens_per_second"] = sum(tokens[key] for key in seconds) / sum(seconds.values())
    if found.failures:
        row |= {"failed": found.failures, "untried": found.untried}


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


def _answer(
    results: Results,
    name: str,
    row: dict[str, Any],
    ranked: Found,
    work: Work,
    plan: Plan,
    answering: Answering,
    journal: Journal,
    track: Track,
) -> None:
    full = not ranked.records and not ranked.failures
    asked = [p for p in work.pools if p.query_id in work.expected and (full or p.query_id in ranked.records)]

    def handle(pools: Sequence[Pool]) -> Iterable[dict[str, Any]]:
        for pool in pools:
            scores = None if full else ranked.records[pool.query_id]["scores"]
            yield answering.answer(pool, scores, work.expected[pool.query_id]).to_dict()

    with track(f"{name}: answers", len(asked)) as step:
        found = run(handle, asked, journal, step)
    outcomes = {key: Outcome.from_dict(record) for key, record in found.records.items()}
    put = {p.query_id: work.expected[p.query_id] for p in work.pools if p.query_id in work.expected}
    counted = accuracy(outcomes, put, plan.seed)
    results.values.setdefault(name, {})["accuracy"] = counted.pop("per_unit")
    del counted["per_query"]
    row["accuracy"] = counted.pop("accuracy")
    row["answers"] = {**counted, **latency(found), "failures": found.failures, "untried": found.untried}


def _compare(results: Results, plan: Plan) -> None:
    """Differences of every system to the baseline, by measure."""
    names = list(results.values)
    baseline = plan.baseline if plan.baseline is not None else ("bm25" if "bm25" in names else None)
    if baseline is None or len(names) < 2:
        return
    if baseline not in names:
        raise InputError(f"the baseline {baseline!r} is none of the systems that ran: {', '.join(names)}")
    results.report["baseline"] = baseline
    results.report["differences"] = {
        name: {
            measure: metrics.difference(values, results.values[baseline][measure], plan.seed)
            for measure, values in results.values[name].items()
            if measure in results.values[baseline]
        }
        for name in names
        if name != baseline
    }


def token_counts(pools: Sequence[Pool], count: Count) -> dict[str, int]:
    """Tokens of each query and its candidates, by query id."""
    known: dict[int, int] = {}
    for pool in pools:
        if id(pool.documents) not in known:
            known[id(pool.documents)] = sum(count(f"{d.title or ''} {d.text}") for d in pool.documents)
    return {pool.query_id: count(pool.query) + known[id(pool.documents)] for pool in pools}


def fingerprint(pools: Sequence[Pool]) -> str:
    """sha256 of all queries and candidates, in their order."""
    whole = hashlib.sha256()
    known: dict[int, str] = {}
    for pool in pools:
        if id(pool.documents) not in known:
            texts = json.dumps([(d.id, d.title, d.text) for d in pool.documents])
            known[id(pool.documents)] = hashlib.sha256(texts.encode()).hexdigest()
        whole.update(json.dumps([pool.query_id, pool.query, known[id(pool.documents)]]).encode())
    return whole.hexdigest()


def counter(entries: Sequence[Entry]) -> Count:
    """What tokens are counted with: the first attention system's tokenizer, else the embedded model's."""
    from qr_core.scorer import QRScorer

    scorer = next((entry.scorer for entry in entries if entry.scorer is not None), None)
    return (scorer or QRScorer.from_pretrained()).count_tokens


def machine() -> dict[str, Any]:
    """What the figures of time depend on, without the machine's name."""
    import torch

    found: dict[str, Any] = {"system": platform.system(), "processor": platform.machine(), "cpus": os.cpu_count()}
    found["threads"] = torch.get_num_threads()
    return found | {"gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None}


def versions() -> dict[str, str]:
    """Of this package and of what its figures depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
