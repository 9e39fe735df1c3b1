"""Jobs: what a request asks of the scorer, whichever dialect it came in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from qr_core.server.queue import Check
from qr_core.types import Document, Order, Pruned, Ranking

if TYPE_CHECKING:
    from qr_core.scorer import QRScorer

T_co = TypeVar("T_co", covariant=True)


class Job(Protocol[T_co]):
    """One request's work."""

    @property
    def query(self) -> str:
        """The question."""

    @property
    def documents(self) -> Sequence[Document]:
        """Those that count towards the server's limits."""

    def run(self, scorer: QRScorer, order: Order, check: Check) -> T_co:
        """Do it, in the server's `order` unless the request says otherwise.

        Raises
        ------
        InputError, QRHeadError
            As the scorer does.
        """


@dataclass(frozen=True)
class RankJob:
    """Rank documents: see `QRScorer.rank`; what is None is as the server has it."""

    query: str
    documents: Sequence[Document]
    top_k: int | None = None
    order: Order | None = None
    retrieval_weight: float | None = None

    def run(self, scorer: QRScorer, order: Order, check: Check) -> Ranking:
        """The ranking."""
        if self.retrieval_weight is not None:
            scorer = scorer.with_options(retrieval_weight=self.retrieval_weight)
        return scorer.rank(self.query, self.documents, top_k=self.top_k, order=self.order or order, progress=check)


@dataclass(frozen=True)
class PruneJob:
    """Prune a text, or documents: see `QRScorer.prune`."""

    query: str
    context: str | Sequence[Document]
    order: Order | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def documents(self) -> Sequence[Document]:
        """A text counts as one document."""
        return [Document(self.context)] if isinstance(self.context, str) else self.context

    def run(self, scorer: QRScorer, order: Order, check: Check) -> Pruned:
        """What is kept."""
        return scorer.prune(self.query, self.context, order=self.order or order, progress=check, **self.options)
