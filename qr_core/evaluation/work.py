"""Work: what one evaluation asks of every system, whatever the task it came from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qr_core.errors import InputError
from qr_core.types import Document

if TYPE_CHECKING:
    from pathlib import Path

    from qr_core.evaluation.options import DataOptions
    from qr_core.evaluation.systems.entry import Entry
    from qr_core.text.counting import Count

Qrels = Mapping[str, Mapping[str, int]]
"""Grade of each judged document, by query id and document id."""


@dataclass(frozen=True)
class CandidateSet:
    """One query's candidates, in the order in which a system is handed them.

    Attributes
    ----------
    collection : tuple of Document
        All documents that the candidates were chosen from, where they are known.
    """

    query_id: str
    query: str
    documents: tuple[Document, ...]
    collection: tuple[Document, ...] = field(default=(), repr=False, compare=False)


Pool = CandidateSet
"""The former name of `CandidateSet`, kept until 1.0."""

Handle = Callable[[Sequence[CandidateSet]], Iterable[dict[str, Any]]]
"""From candidate sets that share their documents to a record for each, in their order."""


@dataclass(frozen=True)
class Expected:
    """What a generator is asked about a candidate set, and what counts as right.

    Attributes
    ----------
    question : str
        Stands after the selected documents in the generator's message.
    answer : str
        The right answer.
    kind : str
        Accuracy is also reported by kind.
    labels : tuple of str
        The only possible answers, where there are such; the reply is then read, not judged.
    unit : str
        Questions of one unit count together: right only when all of them are.
    abstain : bool
        The right answer is that the context does not say.
    """

    question: str
    answer: str
    kind: str = ""
    labels: tuple[str, ...] = ()
    unit: str = ""
    abstain: bool = False


@dataclass(frozen=True)
class Work:
    """The queries of a task.

    Attributes
    ----------
    candidate_sets : list of CandidateSet
        Sets over the same documents share one tuple and follow each other, so that systems can encode it once.
    qrels : Qrels
        Of those sets whose ranking is measured; a set without an entry is only answered.
    expected : mapping of str to Expected
        By query id, for tasks with generation.
    notes : tuple of str
        What a reader of the results must know, such as how many questions were left out and why.
    grid : mapping of str to (int, float)
        Of a needle grid: tokens and depth, by query id.
    measured : callable, optional
        Of a task that does not rank documents: from a system to a handle whose records hold `values` by measure.
    judgements : mapping of str to plain data
        What `measured` compares with, by query id.
    """

    candidate_sets: list[CandidateSet]
    qrels: Qrels = field(default_factory=dict)
    expected: Mapping[str, Expected] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    grid: Mapping[str, tuple[int, float]] = field(default_factory=dict)
    measured: Callable[[Entry], Handle] | None = None
    judgements: Mapping[str, Any] = field(default_factory=dict)

    @property
    def pools(self) -> list[CandidateSet]:
        """The former name of `candidate_sets`, kept until 1.0."""
        return self.candidate_sets


@dataclass(frozen=True)
class Request:
    """What the reader of a task's data is asked for.

    Attributes
    ----------
    options : DataOptions
    answered : bool
        Whether a generator will answer.
    count : callable
        Tokens of a text.
    """

    options: DataOptions
    answered: bool
    count: Count

    @property
    def path(self) -> Path:
        """Where the data lies.

        Raises
        ------
        InputError
            When nobody said.
        """
        if self.options.data is None:
            raise InputError(f"--task {self.options.task} needs --data")
        return self.options.data
