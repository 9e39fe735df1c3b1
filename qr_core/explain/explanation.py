"""Explanation: which words of each document drew the attention of which head.

After the ranking, the best documents that fit one prompt are scored together once more, for the mass per head and word.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from qr_core.explain.words import masses_by_word
from qr_core.files.replace import write_named
from qr_core.heads.pairs import format_pairs
from qr_core.ranking.stages import Stages
from qr_core.types import Document, DocumentLike, Order, Ranking

if TYPE_CHECKING:
    from rich.console import Console

    from qr_core.cache.reads import ReadCache
    from qr_core.heads.sets import HeadSet
    from qr_core.text.pieces import Piece

MOST_DOCUMENTS = 20


class Scorer(Stages, Protocol):
    """What an explanation asks of a scorer, beyond the stages; `QRScorer` is one."""

    @property
    def heads(self) -> HeadSet:
        """The heads that score."""
        ...

    @property
    def cache(self) -> ReadCache | None:
        """Keeps encoded documents for the next query over them."""
        ...

    @property
    def limit(self) -> int | None:
        """Most tokens of one prompt."""
        ...

    def rank(self, query: str, documents: Iterable[DocumentLike], *, order: Order = "given") -> Ranking:
        """Score documents."""
        ...

    def parts(self, documents: Sequence[Document]) -> list[Piece]:
        """What is encoded as one document each."""
        ...


@dataclass(frozen=True)
class ExplainedDocument:
    """One document's words.

    Attributes
    ----------
    index : int
        Position in the caller's list.
    document : Document
    score, relevance : float
        Of the ranking.
    words : tuple of (int, int)
        Half-open characters of each word or run of punctuation in the text, ascending.
    masses : NDArray
        Float32, shape (heads, words): mass of the query on the tokens that begin in the word, minus that of `N/A` where
        the scorer calibrates. Before the token filter, and of all parts where a document is scored in parts, so they
        need not add up to the score.
    title_masses : NDArray
        Float32, shape (heads,): the same on the document's number and title.
    """

    index: int
    document: Document
    score: float
    relevance: float
    words: tuple[tuple[int, int], ...]
    masses: NDArray[np.float32]
    title_masses: NDArray[np.float32]


@dataclass(frozen=True)
class Explanation:
    """A ranking, and the words behind it.

    Attributes
    ----------
    ranking : Ranking
        Of all documents.
    heads : tuple of (int, int)
        Layer and head of each row of the masses.
    documents : tuple of ExplainedDocument
        Best first: as many of the best as were asked for and fit one prompt. They were scored together once more,
        without the others, so where there are others their masses add up to other scores than the ranking's.
    """

    ranking: Ranking
    heads: tuple[tuple[int, int], ...]
    documents: tuple[ExplainedDocument, ...]

    def to_html(self) -> str:
        """One page that needs nothing else: no network, no other file."""
        from qr_core.explain.html import page

        return page(self)

    def save_html(self, path: str | Path) -> None:
        """Write `to_html` to a file; an error leaves the file that was there."""
        write_named(path, self.to_html())

    def _repr_html_(self) -> str:
        """For notebooks: the page in a frame of its own, which cannot reach the notebook."""
        from qr_core.explain.html import frame

        return frame(self)

    def show(self, console: Console | None = None, words: int = 12) -> None:
        """Print the ranking to a terminal, with each document's `words` strongest words and what stands around them."""
        from qr_core.explain.terminal import show

        show(self, console, words)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON: the ranking, the heads, and every document's words with their masses by head."""
        documents = [
            {
                "index": found.index,
                "words": [
                    {"start": start, "end": end, "masses": [float(value) for value in column]}
                    for (start, end), column in zip(found.words, found.masses.T, strict=True)
                ],
                "title_masses": [float(value) for value in found.title_masses],
            }
            for found in self.documents
        ]
        return {
            "ranking": self.ranking.to_dict(),
            "head_list": [format_pairs([head]) for head in self.heads],
            "documents": documents,
        }


def explain(
    scorer: Scorer,
    query: str,
    documents: Iterable[DocumentLike],
    *,
    top_k: int = MOST_DOCUMENTS,
    order: Order = "given",
) -> Explanation:
    """Rank `documents` and say which words drew the attention.

    Parameters
    ----------
    scorer : QRScorer
        Or anything that can do the same.
    query, documents, order
        As for `QRScorer.rank`.
    top_k : int
        Explain at most this many of the best.

    Raises
    ------
    InputError, ContextLengthError, NonFiniteError
        As for `QRScorer.rank`.
    """
    ranking = scorer.rank(query, documents, order=order)
    hits = list(ranking[:top_k])
    if not hits:
        return Explanation(ranking, (), ())
    shown = [hit.document for hit in hits]
    pieces = scorer.parts(shown)
    fitting = _fitting(scorer, query, shown, pieces)
    # In the prompt they stand as they stood for the ranking, so that the masses of a full list are its own.
    placed = sorted(
        (piece for piece in pieces if piece.document < fitting),
        key=lambda piece: (hits[piece.document].index, piece.start),
        reverse=order == "reversed",
    )
    asked = scorer.prompt(query, [piece.of(shown) for piece in placed], scorer.cache)
    masses = scorer.masses([asked], scorer.cache)[0]
    by_piece = {piece: masses_by_word(masses, at, piece.of(shown).text) for at, piece in enumerate(placed)}
    found = []
    for place, hit in enumerate(hits[:fitting]):
        own = [piece for piece in pieces if piece.document == place]
        words = tuple((piece.start + a, piece.start + b) for piece in own for a, b in by_piece[piece][0])
        by_word = np.concatenate([by_piece[piece][1] for piece in own], axis=1)
        before = np.stack([by_piece[piece][2] for piece in own]).sum(axis=0)
        found.append(ExplainedDocument(hit.index, hit.document, hit.score, hit.relevance, words, by_word, before))
    heads = [(layer, head) for layer, row in scorer.heads.by_layer().items() for head in row]
    return Explanation(ranking, tuple(heads), tuple(found))


def _fitting(scorer: Scorer, query: str, documents: list[Document], pieces: list[Piece]) -> int:
    """How many of the first documents fit one prompt; at least one, which then fits or is refused when it is scored."""
    if scorer.limit is None:
        return len(documents)
    overhead = scorer.prompt(query, []).tokens
    totals = np.cumsum(scorer.lengths([piece.of(documents) for piece in pieces])) + overhead
    first_over = int(np.searchsorted(totals, scorer.limit, side="right"))
    return max(1, pieces[first_over].document) if first_over < len(pieces) else len(documents)
