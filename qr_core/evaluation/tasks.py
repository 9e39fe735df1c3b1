"""Tasks: kinds of data, each with how it is read, what it is measured by and which options go with it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from qr_core.errors import InputError
from qr_core.evaluation.data.beir import beir_work
from qr_core.evaluation.data.clipper import read_clipper
from qr_core.evaluation.data.longcontext import read_long_contexts
from qr_core.evaluation.data.longmemeval import read_longmemeval
from qr_core.evaluation.data.multihop import read_multihop
from qr_core.evaluation.data.niah import niah_work
from qr_core.evaluation.data.spans import span_work
from qr_core.evaluation.options import flag
from qr_core.evaluation.work import CandidateSet, Request, Work
from qr_core.registry import Registry


@dataclass(frozen=True)
class Task:
    """A kind of data.

    Attributes
    ----------
    read : callable
        From a request to all of its queries, with their candidates.
    measures : tuple of str
        What counts by default, in ir-measures' names; `All@k` is 1 where all relevant documents are among the first k,
        else 0. None where `Work.measured` says what counts.
    answers : bool
        Whether a generator may answer its questions.
    takes : collection of str
        Options that go only with this task, and with others that name them.
    refuses : collection of str
        Options that do not go with it, or `engine ray`.
    """

    read: Callable[[Request], Work]
    measures: tuple[str, ...] = ()
    answers: bool = False
    takes: Collection[str] = ()
    refuses: Collection[str] = ()


TASKS: Registry[Task] = Registry("task")
"""Kinds of data, by the names that `--task` takes."""
TASKS.add(
    "beir",
    Task(beir_work, ("nDCG@10", "R@5"), takes=("candidates", "candidates_by_title", "depth", "max_words")),
)
TASKS.add(
    "longcontext",
    Task(lambda asked: Work(*read_long_contexts(asked.path)), ("R@3", "R@5", "R@10", "nDCG@10")),
)
TASKS.add(
    "longmemeval",
    Task(lambda asked: read_longmemeval(asked.path), ("R@5", "R@10", "nDCG@10"), answers=True),
)
TASKS.add(
    "clipper",
    Task(lambda asked: read_clipper(asked.path, asked.answered), ("R@3", "R@5", "nDCG@10"), answers=True),
)
TASKS.add("multihop", Task(lambda asked: read_multihop(asked.path), ("R@2", "R@5", "All@2", "All@5")))
TASKS.add(
    "niah",
    Task(niah_work, ("Success@1", "R@3", "RR"), answers=True, takes=("lengths", "depths", "needles")),
)
TASKS.add(
    "spans",
    Task(span_work, refuses=("measures", "exponential_gain", "segments", "orders", "order", "engine ray")),
)


def check_options(name: str, given: Collection[str]) -> Task:
    """The task of this name, when all options that are given go with it.

    Raises
    ------
    InputError
        When there is no such task, or naming the option that does not go with it.
    """
    task = TASKS[name]
    for option in given:
        takers = [known for known, other in TASKS.items() if option in other.takes]
        if option in task.refuses:
            raise InputError(f"{flag(option)} does not go with --task {name}")
        if takers and name not in takers:
            raise InputError(f"{flag(option)} goes with --task {_either(takers)}")
    if "generator" in given and not task.answers:
        takers = [known for known, other in TASKS.items() if other.answers]
        raise InputError(f"--generator goes with --task {_either(takers)}")
    return task


def _either(names: Sequence[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def read_work(task: Task, request: Request) -> Work:
    """The queries of a data set, with their candidates: all of them, or those that the options draw.

    Raises
    ------
    InputError
        When the data is malformed or holds nothing.
    """
    options, work = request.options, task.read(request)
    rng = random.Random(options.seed)
    sets = work.candidate_sets
    if not sets:
        raise InputError(f"{options.data} holds no query with candidates")
    _check(sets)
    if options.limit is not None:
        sets = _some(sets, work, options.limit, rng)
    if options.order == "shuffled":
        sets = _shuffled(sets, rng)
    return replace(work, candidate_sets=sets)


def _check(sets: Sequence[CandidateSet]) -> None:
    """Refuse, before anything is run, what would end a run or merge two documents."""
    seen: set[int] = set()
    for candidates in sets:
        if not candidates.query.strip():
            raise InputError(f"query {candidates.query_id!r:.80} is blank: give it a text, or take it out")
        if id(candidates.documents) in seen:
            continue
        seen.add(id(candidates.documents))
        (key, times), *_ = [*Counter(str(d.id) for d in candidates.documents).most_common(1), ("", 1)]
        if times > 1:
            raise InputError(
                f"document {key!r:.80} stands {times} times among the candidates of query {candidates.query_id!r:.80}"
            )


def _some(sets: list[CandidateSet], work: Work, limit: int, rng: random.Random) -> list[CandidateSet]:
    """`limit` queries; those that count together are taken or left together."""
    units: dict[str, list[int]] = {}
    for number, candidates in enumerate(sets):
        expected = work.expected.get(candidates.query_id)
        unit = expected.unit if expected and expected.unit else f"\x00{candidates.query_id}"
        units.setdefault(unit, []).append(number)
    if limit >= len(units):
        return sets
    kept = {number for unit in rng.sample(list(units), limit) for number in units[unit]}
    return [candidates for number, candidates in enumerate(sets) if number in kept]


def _shuffled(sets: list[CandidateSet], rng: random.Random) -> list[CandidateSet]:
    """Every list of candidates in another order; one that is shared stays shared."""
    orders = {}
    for candidates in sets:
        if id(candidates.documents) not in orders:
            orders[id(candidates.documents)] = tuple(rng.sample(candidates.documents, len(candidates.documents)))
    return [replace(candidates, documents=orders[id(candidates.documents)]) for candidates in sets]
