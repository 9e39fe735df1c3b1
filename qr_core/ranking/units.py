"""Units: what of a text or of documents is read together (pieces) and what is scored apart (units), for pruning.

Joins the division of text to the survey's spans; knows nothing of models, nor of how much is kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qr_core.checks import check_one_of, checked_documents
from qr_core.text import chunking
from qr_core.text.chunking import TextFormat, UnitName
from qr_core.text.pieces import Piece, whole_documents
from qr_core.text.pruning import Candidate
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
        """The units with their standing in a survey, best first."""
        ranked = []
        for place in found.order:
            (number, part), stood = self.parts[place], found.standings[place]
            ranked.append(Candidate(number, part.start, part.end, stood.score, stood.relevance, part.headings))
        return ranked


def divide(documents: str | Iterable[DocumentLike], unit: UnitName, text_format: TextFormat) -> Divided:
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
    check_one_of("unit", unit, UnitName)
    check_one_of("text_format", text_format, TextFormat)
    if unit == "turn":
        text_format = "chat"
    raw = isinstance(documents, str)
    texts = [Document(documents)] if isinstance(documents, str) else checked_documents(documents)
    parts: list[tuple[int, chunking.Unit]] = []
    pieces: list[Piece] = []
    for number, text in enumerate(texts):
        passages = chunking.passages(text.text, text_format) if raw or unit != "document" else []
        pieces += [Piece(number, passage.start, passage.end) for passage in passages]
        parts += [(number, part) for part in chunking.within(text.text, unit, text_format, passages)]
    if not raw and unit == "document":
        pieces = whole_documents(texts)
    return Divided(texts, pieces if parts else [], parts)
