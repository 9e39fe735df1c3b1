"""Units: what of a text or of documents is encoded together (pieces) and what has a score of its own (units).

Joins the division of text to the survey's spans; knows nothing of models, nor of how much is kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qr_core.checks import check_one_of, checked_documents
from qr_core.text import chunking
from qr_core.text.chunking import TextFormat
from qr_core.text.pieces import Piece, whole_documents
from qr_core.text.pruning import Candidate
from qr_core.text.units import UNITS
from qr_core.types import Document, DocumentLike

if TYPE_CHECKING:
    from qr_core.ranking.survey import Result


@dataclass(frozen=True)
class Divided:
    """Texts and their parts.

    Attributes
    ----------
    texts : list of Document
        One for a single text.
    pieces : list of Piece
        What the model is shown as documents of a prompt; empty when there are no units.
    parts : list of (int, Unit)
        Every unit with the position of its text.
    """

    texts: list[Document]
    pieces: list[Piece]
    parts: list[tuple[int, chunking.Unit]]

    @property
    def units(self) -> list[Piece]:
        """The units as spans, for the survey."""
        return [Piece(number, part.start, part.end) for number, part in self.parts]

    def candidates(self, found: Result) -> list[Candidate]:
        """The units with their scores in a survey, best first."""
        ranked = []
        for place in found.order:
            (number, part), stood = self.parts[place], found.scores[place]
            ranked.append(Candidate(number, part.start, part.end, stood.score, stood.relevance, part.headings))
        return ranked


def divide(documents: str | Iterable[DocumentLike], unit: str, text_format: TextFormat) -> Divided:
    """Divide one text (a string) or documents.

    Parameters
    ----------
    documents, unit, text_format
        As for `QRScorer.prune`.

    Raises
    ------
    InputError
        When an option or a document is not usable.
    """
    kind = UNITS[unit]
    check_one_of("text_format", text_format, TextFormat)
    text_format = kind.text_format or text_format
    whole = kind.whole_documents and not isinstance(documents, str)
    texts = [Document(documents)] if isinstance(documents, str) else checked_documents(documents)
    parts: list[tuple[int, chunking.Unit]] = []
    pieces: list[Piece] = whole_documents(texts) if whole else []
    for number, text in enumerate(texts):
        if whole:
            parts += [(number, chunking.Unit(0, len(text.text)))] if text.text.strip() else []
            continue
        passages = chunking.passages(text.text, text_format)
        pieces += [Piece(number, passage.start, passage.end) for passage in passages]
        parts += [(number, part) for part in kind.cut(text.text, text_format)]
    return Divided(texts, pieces if parts else [], parts)
