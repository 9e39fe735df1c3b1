"""Evaluation: every system does the same work; the results become one report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from qr_core.errors import InputError, ModelLoadError
from qr_core.evaluation import metrics
from qr_core.evaluation.answers.replies import Answering, Track, answer, untracked
from qr_core.evaluation.journal import Journal
from qr_core.evaluation.provenance import digest, fingerprint, versions
from qr_core.evaluation.runner import Found, file_name, latency, run
from qr_core.evaluation.systems.entry import Entry
from qr_core.evaluation.systems.orders import sensitivity
from qr_core.evaluation.work import CandidateSet, Work
from qr_core.files.replace import make_folder
from qr_core.files.workfolder import WorkFolder, held, refuse_links
from qr_core.mini import embedded_model
from qr_core.model.loading import ModelSource, load_tokenizer
from qr_core.text.counting import Count
from qr_core.text.counting import counter as token_counter

Elsewhere = Callable[[Sequence[Entry], Sequence[CandidateSet], Mapping[str, Journal], Track], Mapping[str, Found]]
"""Lets some of the systems do the work outside this process; what they found, by name."""


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
    notes : list of str
        What a reader of the results must know.
    """

    report: dict[str, Any]
    runs: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    values: dict[str, dict[str, Mapping[str, float]]] = field(default_factory=dict)
    seconds: dict[str, dict[str, float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """How results are counted.

    Attributes
    ----------
    measures : sequence of str
        In ir-measures' names; ignored where `Work.measured` says what counts.
    exponential_gain : bool
        Of nDCG; see `metrics.per_query`.
    baseline : str, optional
        What the others are compared to; by default bm25.
    seed : int
        Of the intervals.
    count : callable, optional
        Tokens of a text, for the rate at which systems go through queries and candidates.
    answering : Answering, optional
        Let a generator answer from what each system ranks first.
    elsewhere : callable, optional
        Lets some of the systems rank outside this process; see `pooled`.
    """

    measures: Sequence[str] = ()
    exponential_gain: bool = False
    baseline: str | None = None
    seed: int = 0
    count: Count | None = None
    answering: Answering | None = None
    elsewhere: Elsewhere | None = None


def evaluate(
    work: Work, entries: Sequence[Entry], plan: Plan, folder: Path | None = None, track: Track = untracked
) -> Results:
    """Let every system do the work, going on where an earlier run in `folder` stopped.

    Raises
    ------
    InputError
        When no system can be run, the baseline is none of them, or the folder holds results of other work.
    """
    names = [entry.name for entry in entries]
    if plan.baseline is not None and plan.baseline not in names:
        raise InputError(f"the baseline {plan.baseline!r} is none of the systems: {', '.join(names)}")
    if folder is not None:
        make_folder(folder)
        refuse_links(folder)
    with nullcontext() if folder is None else held(folder / "work"):
        return _evaluated(work, entries, plan, folder, track)


def _evaluated(work: Work, entries: Sequence[Entry], plan: Plan, folder: Path | None, track: Track) -> Results:
    names = [entry.name for entry in entries]
    done = None if folder is None else _work_folder(folder, work)
    places = {name: None if done is None else done / file_name(name) for name in names}
    journals = {entry.name: Journal(places[entry.name], entry.about) for entry in entries if entry.make is not None}
    elsewhere = plan.elsewhere(entries, work.candidate_sets, journals, track) if plan.elsewhere else {}
    results = Results({"systems": {}})
    steps = _Steps(work, plan, track, results)
    for entry in entries:
        row = results.report["systems"][entry.name] = dict(entry.about)
        found = elsewhere.get(entry.name) or steps.ranked(entry, journals.get(entry.name))
        if found.missing:
            row["missing"] = found.missing
            continue
        if entry.make is not None:
            row |= steps.counted(entry, found)
        if plan.answering is not None:
            row |= steps.answered(entry, found, plan.answering, places[entry.name])
    missing = [str(row["missing"]) for row in results.report["systems"].values() if "missing" in row]
    if len(missing) == len(entries):
        raise InputError(f"no system can be run: {missing[0]}")
    _compare(results, plan)
    if (orders := sensitivity(results.runs, results.values)) is not None:
        results.report["orders"] = orders
    return results


def _work_folder(folder: Path, work: Work) -> Path:
    """Where records are kept, of this work alone."""
    sets = work.candidate_sets
    judged = [(one.query_id, work.judgements[one.query_id]) for one in sets if one.query_id in work.judgements]
    judgements = digest(judged) if judged else ""
    job = {"queries and candidates": fingerprint(sets), "judgements": judgements, "versions": versions()}
    return WorkFolder(folder / "work", job).path


@dataclass(frozen=True)
class _Steps:
    """What is done with each system: it ranks, its results are counted, and a generator answers from them."""

    work: Work
    plan: Plan
    track: Track
    results: Results

    def ranked(self, entry: Entry, journal: Journal | None) -> Found:
        """What the system found."""
        if journal is None:  # either its model is missing, or it ranks nothing
            return Found(missing=entry.missing)
        sets = self.work.candidate_sets
        try:
            handle = self.work.measured(entry) if self.work.measured else entry.handle()
            with self.track(entry.name, len(sets)) as step:
                return run(handle, sets, journal, step)
        except ModelLoadError as error:
            return Found(missing=str(error))
        finally:
            if entry.scorer is not None and entry.scorer.document_cache is not None:
                entry.scorer.document_cache.clear()  # each system is timed with its own encoding

    def counted(self, entry: Entry, found: Found) -> dict[str, Any]:
        """Its measures and times, for its row."""
        values = self.results.values[entry.name] = dict(self._values(entry, found))
        row: dict[str, Any] = {name: metrics.summary(measured, self.plan.seed) for name, measured in values.items()}
        row |= latency(found)
        seconds = {key: float(record["seconds"]) for key, record in found.records.items()}
        self.results.seconds[entry.name] = seconds
        if self.plan.count is not None and sum(seconds.values()) > 0:
            row["tokens_per_second"] = sum(self._tokens[key] for key in seconds) / sum(seconds.values())
        if entry.replies is not None:
            kinds = [record["replies"] for record in found.records.values()]
            row["replies"] = {key: sum(counted[key] for counted in kinds) for key in entry.replies()}
        if found.failures:
            row |= {"failed": found.failures, "untried": found.untried}
        return row

    def _values(self, entry: Entry, found: Found) -> Mapping[str, Mapping[str, float]]:
        """Each measure's value for each query."""
        if self.work.measured:
            per_query = {key: record["values"] for key, record in found.records.items()}
            names = next(iter(per_query.values()), ())
            return {name: {key: measured[name] for key, measured in per_query.items()} for name in names}
        ranked = self.results.runs[entry.name] = {
            one.query_id: {
                str(document.id): score
                for document, score in zip(one.documents, found.records[one.query_id]["scores"], strict=True)
            }
            for one in self.work.candidate_sets
            if one.query_id in found.records
        }
        return metrics.per_query(ranked, self.work.qrels, self.plan.measures, self.plan.exponential_gain)

    @cached_property
    def _tokens(self) -> dict[str, int]:
        return {} if self.plan.count is None else token_counts(self.work.candidate_sets, self.plan.count)

    def answered(self, entry: Entry, found: Found, answering: Answering, place: Path | None) -> dict[str, Any]:
        """Accuracy of the answers from what it ranked first, for its row."""
        scores = None if entry.make is None else {key: record["scores"] for key, record in found.records.items()}
        folder = None if place is None else place.with_name(f"{place.name}.answers")
        replies = answer(entry.name, entry.about, scores, self.work, answering, self.plan.seed, folder, self.track)
        self.results.values.setdefault(entry.name, {})["accuracy"] = replies.pop("per_unit")
        del replies["per_query"]
        return {"accuracy": replies.pop("accuracy"), "answers": replies}


def _compare(results: Results, plan: Plan) -> None:
    """Differences of every system to the baseline, by measure."""
    names = list(results.values)
    baseline = plan.baseline if plan.baseline is not None else "bm25"
    if baseline not in names:
        if plan.baseline is not None:
            results.notes.append(f"nothing is compared: the baseline {baseline} was not run")
        return
    if len(names) < 2:
        return
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


def token_counts(sets: Sequence[CandidateSet], count: Count) -> dict[str, int]:
    """Tokens of each query and its candidates, by query id. A document that queries share is counted once."""
    known: dict[int, int] = {}
    for one in sets:
        for document in one.documents:
            if id(document) not in known:
                known[id(document)] = count(f"{document.title or ''} {document.text}")
    return {one.query_id: count(one.query) + sum(known[id(d)] for d in one.documents) for one in sets}


def counter(entries: Sequence[Entry]) -> Count:
    """What tokens are counted with: the first attention system's tokenizer, else the embedded model's."""
    for entry in entries:
        if entry.scorer is not None:
            return entry.scorer.count_tokens
    return token_counter(None, load_tokenizer(ModelSource(str(embedded_model()))))
