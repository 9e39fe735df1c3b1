"""Replies: a generator answers every question from what a system ranked first, then a judge reads what it said.

Both go on where an earlier run stopped, each for itself: a judge that fails costs no reply, and another judge can read
the same replies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from qr_core.evaluation.answers.answering import Outcome, accuracy, answer_question, outcome_of
from qr_core.evaluation.answers.judging import Judge
from qr_core.evaluation.journal import Journal
from qr_core.evaluation.provenance import digest
from qr_core.evaluation.runner import Found, latency, run
from qr_core.evaluation.work import CandidateSet, Expected, Work
from qr_core.generation import Generator

Track = Callable[[str, int], AbstractContextManager[Callable[[], None]]]
"""From a name and a number of queries to a context with a function to call after each."""


def untracked(_: str, __: int) -> AbstractContextManager[Callable[[], None]]:
    """A `Track` that shows nothing."""
    return nullcontext(lambda: None)


@dataclass(frozen=True)
class Answering:
    """How questions are answered: by whom, from how many documents, and who decides whether a reply is right."""

    generator: Generator
    judge: Judge | None
    top_k: int
    max_new_tokens: int
    name: str  # the generator's before it is asked: an address learns its model's later, and a resumed run never

    def record(self) -> dict[str, Any]:
        """Plain data for the report."""
        return {**self.asked(), "judge": None if self.judge is None else self.judge.record()}

    def asked(self) -> dict[str, Any]:
        """What decides the replies."""
        return {"generator": self.name, "top_k": self.top_k, "max_new_tokens": self.max_new_tokens}


def answer(
    name: str,
    job: Mapping[str, Any],
    scores: Mapping[str, Sequence[float]] | None,
    work: Work,
    answering: Answering,
    seed: int,
    folder: Path | None,
    track: Track,
) -> dict[str, Any]:
    """Let the generator answer, and the judge judge, all questions of one system.

    Parameters
    ----------
    job : dict
        Everything that decides the scores, as plain data.
    scores : mapping of str to sequence of float, optional
        By query id; a question without scores is not asked. Without any of them the generator reads all documents.
    folder : Path, optional
        Where replies are kept.

    Returns
    -------
    dict
        As `answering.accuracy`, and latency of the replies, `failures` and `untried`; see `runner.Found`.

    Raises
    ------
    InputError
        When the folder holds replies to other questions, or by another generator.
    """
    ids = [one.query_id for one in work.candidate_sets]
    put = {query: work.expected[query] for query in ids if query in work.expected}
    known = put if scores is None else put.keys() & scores.keys()
    asked = [one for one in work.candidate_sets if one.query_id in known]

    def reply(sets: Sequence[CandidateSet]) -> Iterable[dict[str, Any]]:
        for one in sets:
            ranked = None if scores is None else scores[one.query_id]
            most, room = answering.top_k, answering.max_new_tokens
            yield {"reply": answer_question(answering.generator, one, ranked, put[one.query_id], most, room)}

    questions = digest([(key, wanted.question, wanted.labels) for key, wanted in put.items()])
    journal = Journal(folder, {**job, "questions": questions, **answering.asked()})
    with track(f"{name}: answers", len(asked)) as step:
        replies = run(reply, asked, journal, step)
    judged = [one for one in asked if one.query_id in replies.records]
    said = {one.query_id: str(replies.records[one.query_id]["reply"]) for one in judged}
    verdicts = _judged(name, judged, said, put, answering.judge, folder, track)
    outcomes = {key: Outcome.from_dict(record) for key, record in verdicts.records.items()}
    failures = {**replies.failures, **verdicts.failures}
    more = {"failures": failures, "untried": replies.untried + verdicts.untried}
    return {**accuracy(outcomes, put, seed), **latency(replies), **more}


def _judged(
    name: str,
    sets: Sequence[CandidateSet],
    said: Mapping[str, str],
    expected: Mapping[str, Expected],
    judge: Judge | None,
    folder: Path | None,
    track: Track,
) -> Found:
    """An outcome for each reply; only a judge's verdicts are worth keeping."""
    judged = {key: digest([reply, asdict(expected[key])]) for key, reply in said.items()}

    def verdict(sets: Sequence[CandidateSet]) -> Iterable[dict[str, Any]]:
        for one in sets:
            key = one.query_id
            yield {**outcome_of(said[key], expected[key], judge).to_dict(), "judged": judged[key]}

    if judge is None:
        return run(verdict, sets, Journal(None, {}))
    journal = Journal(None if folder is None else folder / "verdicts", judge.record())
    # A reply may have been made again, and a right answer corrected, since it was judged.
    journal.forget(key for key, record in journal.records.items() if record.get("judged") != judged.get(key))
    with track(f"{name}: verdicts", len(sets)) as step:
        return run(verdict, sets, journal, step)
