"""Pieces: the parts in which a document is encoded; long documents are cut at paragraphs, sentences and blanks.

Text is measured by a function that the caller hands in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from qr_core.errors import InputError
from qr_core.text.borders import halves
from qr_core.text.chunking import blocks, sentences
from qr_core.types import Document

PIECE_SHARE = 0.25
"""The largest share of a prompt that one piece may take, so that several can be compared; longer ones are cut."""
EVEN = 1.25
"""Parts end at paragraphs and sentences: one may be longer by this factor than if all were equal."""

Measure = Callable[[Sequence[Document]], list[int]]
"""How many tokens each document takes in a prompt, at most."""


@dataclass(frozen=True)
class Piece:
    """Part of a document's text that is encoded as one document: `documents[document].text[start:end]`."""

    document: int
    start: int
    end: int

    def covers(self, other: Piece) -> bool:
        """Whether the whole of `other` lies in this."""
        return self.document == other.document and self.start <= other.start and self.end >= other.end

    def of(self, documents: Sequence[Document]) -> Document:
        """The piece as a document of its own, under its document's title."""
        whole = documents[self.document]
        if self.end - self.start == len(whole.text):
            return whole
        return Document(whole.text[self.start : self.end], whole.title, whole.id)


def whole_documents(documents: Sequence[Document]) -> list[Piece]:
    """One piece per document."""
    return [Piece(number, 0, len(document.text)) for number, document in enumerate(documents)]


def cut_long(
    documents: Sequence[Document], pieces: Sequence[Piece], capacity: int, measure: Measure
) -> tuple[list[Piece], list[int]]:
    """Cut pieces that take more than `PIECE_SHARE` of `capacity` tokens: at paragraphs, then sentences, then blanks.

    Returns
    -------
    tuple of (list of Piece, list of int)
        The pieces in their order, and each one's tokens.

    Raises
    ------
    InputError
        When a document's title leaves no room for its text.
    """
    limit = int(capacity * PIECE_SHARE)
    found: list[Piece] = []
    lengths: list[int] = []
    for piece, length in zip(pieces, measure([piece.of(documents) for piece in pieces]), strict=True):
        if length <= limit:
            found.append(piece)
            lengths.append(length)
            continue
        document = documents[piece.document]
        title = _title_tokens(document, measure)
        if title > limit // 2:
            raise InputError(
                f"document {piece.document}: its title takes {title} tokens, too many for segments of {capacity}: "
                "shorten the title, or allow longer prompts"
            )
        for start, end, tokens in _spans(document.text, piece, limit - title, measure):
            found.append(Piece(piece.document, start, end))
            lengths.append(tokens + title)
    return found, lengths


def in_parts(documents: Sequence[Document], pieces: Sequence[Piece], tokens: int, measure: Measure) -> list[Piece]:
    """Cut pieces of more than `tokens` tokens into parts of about equal length, at most that long with their titles.

    A title gets half of that at most; a longer one makes its parts longer.
    """
    found: list[Piece] = []
    for piece, length in zip(pieces, measure([piece.of(documents) for piece in pieces]), strict=True):
        if length <= tokens:
            found.append(piece)
            continue
        document = documents[piece.document]
        room = max(tokens - _title_tokens(document, measure), tokens // 2)
        even = length / math.ceil(length / room)
        spans = _spans(document.text, piece, min(room, int(EVEN * even)), measure)
        found += [Piece(piece.document, start, end) for start, end, _ in spans]
    return found


def _title_tokens(document: Document, measure: Measure) -> int:
    with_title, without = measure([Document("", document.title), Document("")])
    return with_title - without


def _spans(text: str, piece: Piece, limit: int, measure: Measure) -> list[tuple[int, int, int]]:
    """Consecutive spans of a piece with at most `limit` tokens each, as (start, end, tokens)."""
    inside = text[piece.start : piece.end]
    small: list[tuple[int, int, int]] = []
    paragraphs = [(unit.start, unit.end) for unit in blocks(inside, "text")]
    for (start, end), tokens in zip(paragraphs, measure([Document(inside[a:b]) for a, b in paragraphs]), strict=True):
        if tokens <= limit:
            small.append((start, end, tokens))
            continue
        todo = [(start + unit.start, start + unit.end) for unit in sentences(inside[start:end])][::-1]
        while todo:
            a, b = todo.pop()
            tokens = measure([Document(inside[a:b])])[0]
            if tokens <= limit or b - a < 2:
                small.append((a, b, tokens))
            else:
                todo += reversed(halves(inside, a, b))
    merged: list[tuple[int, int, int]] = []
    for start, end, tokens in small:
        # Long white space is tokens to some tokenizers; a blank or a line break joins its neighbour.
        between = max(0, start - merged[-1][1] - 2) if merged else 0
        if merged and merged[-1][2] + between + tokens <= limit:
            merged[-1] = (merged[-1][0], end, merged[-1][2] + between + tokens)
        else:
            merged.append((start, end, tokens))
    return [(piece.start + a, piece.start + b, tokens) for a, b, tokens in merged] or [(piece.start, piece.start, 0)]
