"""Bulk ranking of one part: what every engine runs, in whatever process.

A job is a JSON object with `query`, `documents` and optionally `id`. One that cannot be read or ranked becomes a row
with an error, and the others go on.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from qr_core.bulk.files import Part
from qr_core.bulk.formats import FORMATS, Row, trec_id
from qr_core.bulk.output import Done
from qr_core.checks import checked_documents, checked_query
from qr_core.errors import ENDINGS, InputError, ModelLoadError, QRHeadError, StoppedError
from qr_core.options import ScorerOptions
from qr_core.types import Document, Order, Ranking

if TYPE_CHECKING:
    from qr_core.scorer import QRScorer

PATIENCE = 5
"""Jobs in a row that fail unexpectedly; then a plain one is tried, and where that fails too, the run ends."""
OF_THE_JOB = (QRHeadError, torch.OutOfMemoryError)
"""Failures that say nothing about the next job."""


@dataclass(frozen=True)
class Job:
    """One line of the input; `error` says why it cannot be ranked."""

    job: int
    line: int
    id: str | int | None = None
    query: str = ""
    documents: list[Document] = field(default_factory=list)
    error: str | None = None


@dataclass(frozen=True)
class Options:
    """What is asked of every job.

    Attributes
    ----------
    scorer : ScorerOptions
    top_k, order
        As for `QRScorer.rank`.
    format : str
        Of `qr_core.bulk.formats.FORMATS`.
    """

    scorer: ScorerOptions
    top_k: int | None = None
    order: Order = "given"
    format: str = "parquet"

    def make_scorer(self) -> QRScorer:
        """The scorer. Nothing is kept from one call to the next, so that results do not depend on who ranks what."""
        from qr_core.scorer import QRScorer

        return QRScorer.from_options(self.scorer.changed(cache_bytes=0))


class Ranker:
    """Holds a model and ranks parts with it.

    Parameters
    ----------
    options : Options
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.scorer = options.make_scorer()

    def __call__(self, part: Part, lines: bytes) -> Done:
        """Rank the jobs of a part.

        Raises
        ------
        ModelLoadError
            When the model cannot be loaded.
        StoppedError
            When one job after the other fails for no reason of its own.
        """
        jobs, into = jobs_of(part, lines), FORMATS[self.options.format]
        if into.by_id:
            jobs = [_told_apart(job) for job in jobs]
        rows = list(self._rows(jobs))
        if len(rows) != part.jobs:
            raise StoppedError(
                f"part {part.number} has {len(rows)} jobs and should have {part.jobs}: the input has changed"
            )
        content, errors = into.rendered(rows)
        return Done(part.number, len(rows), sum(row["error"] is not None for row in rows), content, errors)

    def _rows(self, jobs: Sequence[Job]) -> Iterator[Row]:
        """A row for each job, in order."""
        found = self._ranked([(job.query, job.documents) for job in jobs if job.error is None])
        in_a_row = 0
        for job in jobs:
            result: Ranking | BaseException | str = next(found) if job.error is None else job.error
            if isinstance(result, ModelLoadError):
                raise result
            unexpected = isinstance(result, BaseException) and not isinstance(result, OF_THE_JOB)
            in_a_row = in_a_row + 1 if unexpected else 0
            if in_a_row == PATIENCE and isinstance(result, BaseException):
                if not self._works():
                    raise StoppedError(
                        f"line {job.line}: {_told(result)}, the {PATIENCE}th job in a row to fail so"
                    ) from result
                in_a_row = 0  # the jobs are at fault: perhaps they share a document
            yield _row(job, result)

    def _works(self) -> bool:
        """Whether a job that nothing is wrong with can be ranked."""
        try:
            self.scorer.rank("Is it there?", [Document("It is here."), Document("It is there.")])
        except ENDINGS:
            raise
        except BaseException:
            return False
        return True

    def _ranked(self, jobs: Sequence[tuple[str, list[Document]]]) -> Iterator[Ranking | BaseException]:
        """A ranking of each job, or why there is none."""
        asked, done = {"top_k": self.options.top_k, "order": self.options.order}, 0
        while done < len(jobs):
            try:
                for ranking in self.scorer.rank_each(jobs[done:], **asked):  # type: ignore[arg-type]
                    done += 1
                    yield ranking
            except ENDINGS:
                raise
            except BaseException:  # of this job, or of one that was read together with it: alone it shows
                result: Ranking | BaseException
                try:
                    result = self.scorer.rank(*jobs[done], **asked)  # type: ignore[arg-type]
                except ENDINGS:
                    raise
                except BaseException as error:
                    result = error.with_traceback(None)  # whose frames would hold on to tensors
                done += 1
                yield result


def jobs_of(part: Part, lines: bytes) -> list[Job]:
    """The jobs of a part's lines. Blank ones are passed over; broken ones say so."""
    jobs: list[Job] = []
    for number, line in enumerate(lines.split(b"\n"), start=part.first_line):
        if line.strip():
            jobs.append(_job(part.first_job + len(jobs), number, line))
    return jobs


def _job(job: int, line: int, raw: bytes) -> Job:
    key: str | int | None = None
    try:
        try:
            value = json.loads(raw.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            raise InputError(f"not UTF-8 (byte {error.start})") from error
        except (ValueError, RecursionError) as error:
            raise InputError(f"not valid JSON ({error})") from error
        if not isinstance(value, dict):
            raise InputError('not a JSON object; expected {"query": ..., "documents": [...]}')
        found = value.get("id")
        if isinstance(found, bool) or not isinstance(found, str | int | None):
            raise InputError(f"'id' is of type {type(found).__name__}, not str, int or None")
        key = found
        for name in ("query", "documents"):
            if value.get(name) is None:
                raise InputError(f"there is no {name!r}")
        return Job(job, line, key, checked_query(value["query"]), checked_documents(value["documents"]))
    except InputError as error:
        return Job(job, line, key, error=f"line {line}: {error}")


def _told_apart(job: Job) -> Job:
    """The job, with an error where a TREC run would hold one document twice."""
    names = [trec_id(document.id, index) for index, document in enumerate(job.documents)]
    twice = next((name for name, times in Counter(names).items() if times > 1), None)
    if twice is None:
        return job
    return replace(job, error=f"line {job.line}: two documents have the id {twice}, which a TREC run cannot tell apart")


def _row(job: Job, result: Ranking | BaseException | str) -> Row:
    row: dict[str, Any] = {"job": job.job, "line": job.line, "id": job.id}
    if not isinstance(result, Ranking):
        error = result if isinstance(result, str) else f"line {job.line}: {_told(result)}"
        return {
            **row,
            "hits": None,
            "calibrated": None,
            "segments": None,
            "windows": None,
            "rounds": None,
            "error": error,
        }
    hits = [
        {
            "index": hit.index,
            "id": hit.document.id,
            "score": hit.score,
            "relevance": hit.relevance,
            "round": hit.round,
            "segment": hit.segment,
            "window": hit.segment,  # its older name, until 1.0
        }
        for hit in result
    ]
    segments = {"segments": result.segments, "windows": result.segments}  # the second is the older name, until 1.0
    about = {"calibrated": result.calibrated, **segments, "rounds": result.rounds}
    return {**row, "hits": hits, **about, "error": None}


def _told(error: BaseException) -> str:
    """An error in one line; of one that nobody expected, its type too."""
    text = " ".join(str(error).split()) or "no message"
    return text if isinstance(error, QRHeadError) else f"{type(error).__name__}: {text}"
