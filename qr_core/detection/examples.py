"""Examples: queries, documents and which of these answer, that heads are judged by; which of them can be used."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from qr_core.scorer import QRScorer
from qr_core.types import Document


@dataclass(frozen=True)
class Example:
    """A query, documents, and which of them answer it.

    Attributes
    ----------
    id : str
        Names it in reports.
    query : str
    documents : tuple of Document
        In prompt order.
    gold : tuple of int
        Positions of the documents that answer.
    """

    id: str
    query: str
    documents: tuple[Document, ...]
    gold: tuple[int, ...]

    def problem(self) -> str | None:
        """Why nothing can be learnt from it, or None."""
        if not self.query.strip():
            return "its query is empty"
        if not self.gold:
            return "none of its documents is marked as answering"
        wrong = [place for place in self.gold if not 0 <= place < len(self.documents)]
        if wrong:
            return f"document {wrong[0]} is marked as answering, and there are {len(self.documents)}"
        if len(set(self.gold)) == len(self.documents):
            return "all its documents are marked as answering"
        return None

    def shuffled(self, seed: int) -> Example:
        """The same with documents in an order that depends on `seed` and `id` alone."""
        order = list(range(len(self.documents)))
        random.Random(f"{seed} {self.id}").shuffle(order)
        place = {old: new for new, old in enumerate(order)}
        return replace(
            self,
            documents=tuple(self.documents[old] for old in order),
            gold=tuple(sorted({place[old] for old in self.gold})),
        )


def usable(scorer: QRScorer, examples: Sequence[Example]) -> tuple[list[Example], dict[str, str]]:
    """Examples to learn from, and the others with the reason; an id that repeats gets a number."""
    found: list[Example] = []
    left_out: dict[str, str] = {}
    seen: dict[str, int] = {}
    for example in examples:
        seen[example.id] = seen.get(example.id, 0) + 1
        if seen[example.id] > 1:
            example = replace(example, id=f"{example.id} ({seen[example.id]})")
        problem = example.problem() or _too_long(scorer, example)
        if problem:
            left_out[example.id] = problem
        else:
            found.append(example)
    return found, left_out


def _too_long(scorer: QRScorer, example: Example) -> str | None:
    """By how much an example does not fit one prompt that every head sees whole, or None."""
    windows = [scorer.reader.windows.get(layer) for layer, _ in scorer.heads.pairs()]
    reach = min((n for n in (scorer.context, *windows) if n is not None), default=None)
    excess = scorer.prompt(example.query, example.documents).overflow(scorer.limit, reach)
    most = min((n for n in (scorer.limit, reach) if n is not None), default=None)
    return f"it is {excess} tokens longer than {most}" if excess else None
