"""Work: what one evaluation asks of every system, whatever the task it came from.

Knows nothing of files, systems or metrics.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from qr_core.types import Document

Qrels = Mapping[str, Mapping[str, int]]
"""Grade of each judged document, by query id and document id."""


@dataclass(frozen=True)
class Pool:
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


@dataclass(frozen=True)
class Expected:
    """What a generator is asked about a pool, and what counts as right.

    Attributes
    ----------
    question : str
        Stands after the selected documents in the generator's message.
    answer : str
        The right answer.
    kind : str
        Accuracy is also told by kind.
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
    pools : list of Pool
        Pools over the same documents share one tuple and follow each other, so that systems can read it once.
    qrels : Qrels
        Of those pools whose ranking is measured; a pool without an entry is only answered.
    expected : mapping of str to Expected
        By query id, for tasks with generation.
    notes : tuple of str
        What a reader of the results must know, such as how many questions were left out and why.
    grid : mapping of str to (int, float)
        Of a needle grid: tokens and depth, by query id.
    """

    pools: list[Pool]
    qrels: Qrels
    expected: Mapping[str, Expected] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    grid: Mapping[str, tuple[int, float]] = field(default_factory=dict)
