"""Explanation: which words of each document drew the attention of which head.

ranking -> the best documents that fit one prompt, scored together once more -> mass per head and word
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qr_core.explain.words import WORD
from qr_core.heads.pairs import format_pairs
from qr_core.types import Document, DocumentLike, Order, Ranking

if TYPE_CHECKING:
    from rich.console import Console

    from qr_core.ranking.calibration import TokenMasses
    from qr_core.scorer import QRScorer
    from qr_core.text.pieces import Piece

MOST_DOCUMENTS = 20


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
        """Write `to_html` to a file."""
        Path(path).write_text(self.to_html(), encoding="utf-8")

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
    scorer: QRScorer,
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
    read = scorer.token_masses(query, [piece.of(shown) for piece in placed], scorer.cache)
    by_piece = {piece: _by_word(read, at, piece.of(shown).text) for at, piece in enumerate(placed)}
    found = []
    for place, hit in enumerate(hits[:fitting]):
        own = [piece for piece in pieces if piece.document == place]
        words = tuple((piece.start + a, piece.start + b) for piece in own for a, b in by_piece[piece][0])
        masses = np.concatenate([by_piece[piece][1] for piece in own], axis=1)
        before = np.stack([by_piece[piece][2] for piece in own]).sum(axis=0)
        found.append(ExplainedDocument(hit.index, hit.document, hit.score, hit.relevance, words, masses, before))
    heads = [(layer, head) for layer, row in scorer.heads.by_layer().items() for head in row]
    return Explanation(ranking, tuple(heads), tuple(found))


def _fitting(scorer: QRScorer, query: str, documents: list[Document], pieces: list[Piece]) -> int:
    """How many of the first documents fit one prompt; at least one, which then fits or is refused when it is read."""
    if scorer.limit is None:
        return len(documents)
    overhead = scorer.prompt(query, []).tokens
    totals = np.cumsum(scorer.prompts.lengths([piece.of(documents) for piece in pieces])) + overhead
    first_over = int(np.searchsorted(totals, scorer.limit, side="right"))
    return max(1, pieces[first_over].document) if first_over < len(pieces) else len(documents)


def _by_word(
    read: TokenMasses, at: int, text: str
) -> tuple[tuple[tuple[int, int], ...], NDArray[np.float32], NDArray[np.float32]]:
    """Sum the masses of one document's tokens by word; tokens before the text are its number and title."""
    first, last = read.prompt.document_spans[at]
    mass = read.mass[:, first:last].numpy()
    places = read.prompt.starts[first:last] - read.prompt.text_starts[at]
    ends = read.prompt.ends[first:last] - read.prompt.text_starts[at]
    words = tuple(match.span() for match in WORD.finditer(text))
    masses = np.zeros((mass.shape[0], len(words)), dtype=np.float32)
    before = mass[:, ends <= 0].sum(axis=1)
    if words:
        inside = np.flatnonzero(ends > 0)
        # A token may begin with the blank before its word: it belongs to the first word that ends after its start.
        owner = np.searchsorted(np.array([end for _, end in words]), places[inside], side="right")
        np.add.at(masses.T, np.minimum(owner, len(words) - 1), mass[:, inside].T)
    return words, masses, before.astype(np.float32)
