"""Windows: score more text than one prompt holds.

Pieces (documents, or parts of long ones) are packed into windows in their order; each window is one prompt with one
softmax. The best piece of every window, and the best of all, meet in the next round, until one holds them all. So the
pieces of the last round were scored against each other; the others rank below, by the round they reached.

Knows nothing of models and tokenizers: a window is read, and text measured, by functions that the caller hands in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from qr_core.errors import InputError
from qr_core.text.chunking import halves, units
from qr_core.types import Document

PIECE_SHARE = 0.25
"""Most of a window that one piece takes, so that several can be compared; longer documents are cut."""
ROUND_SHARE = 0.5
"""So much of the text goes on to the next round, or as much as fills one window where that is more. A quarter is read a
third faster and ranks further from what one prompt gives (QMSum's training split, eight windows)."""

EVEN = 1.25
"""A part of a document may be so much longer than if all were equal: they end at paragraphs and sentences."""

Measure = Callable[[Sequence[Document]], list[int]]
"""How many tokens each document takes in a prompt, at most."""


@dataclass(frozen=True)
class Piece:
    """Part of a document's text that is read in one go: `documents[document].text[start:end]`."""

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


class Overflow(Exception):  # noqa: N818 - a signal, not an error
    """Raised by a read whose window came out so many tokens too long: pieces measured alone can add up to less."""

    def __init__(self, tokens: int) -> None:
        super().__init__(tokens)
        self.tokens = tokens


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
                f"document {piece.document}: its title takes {title} tokens, too many for windows of {capacity}: "
                "shorten the title, or allow longer prompts"
            )
        for start, end, tokens in _spans(document.text, piece, limit - title, measure):
            found.append(Piece(piece.document, start, end))
            lengths.append(tokens + title)
    return found, lengths


def in_parts(documents: Sequence[Document], pieces: Sequence[Piece], tokens: int, measure: Measure) -> list[Piece]:
    """Cut pieces of more than `tokens` tokens into parts of about equal length, with their titles at most so long.

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
    paragraphs = [(unit.start, unit.end) for unit in units(inside, "paragraph")]
    for (start, end), tokens in zip(paragraphs, measure([Document(inside[a:b]) for a, b in paragraphs]), strict=True):
        if tokens <= limit:
            small.append((start, end, tokens))
            continue
        sentences = [(start + unit.start, start + unit.end) for unit in units(inside[start:end], "sentence")]
        todo = sentences[::-1]
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


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Put consecutive pieces into windows of about equal length, each of at most `capacity` tokens.

    Parameters
    ----------
    lengths : sequence of int
        Tokens of each piece; none is more than `capacity`.

    Returns
    -------
    list of list of int
        The pieces' positions in `lengths`, by window.
    """
    total = sum(lengths)
    target = total / max(1, math.ceil(total / capacity))
    windows: list[list[int]] = []
    used = 0
    for number, length in enumerate(lengths):
        if not windows or used + length > capacity or used + length / 2 > target:
            windows.append([])
            used = 0
        windows[-1].append(number)
        used += length
    return windows


def contest(lengths: Sequence[int], capacity: int, read: Callable[[int, int, Sequence[int]], Sequence[float]]) -> None:
    """Read all pieces in windows, then the best of each window again, until one window has read all that are left.

    Parameters
    ----------
    lengths : sequence of int
        Tokens of each piece, none more than `PIECE_SHARE` of `capacity`, unless all fit one window.
    read : callable
        Gets the round (from 1), the window (from 0) and the pieces' numbers; returns a score for each.
    """
    left = list(range(len(lengths)))
    stage = 1
    while True:
        windows = [[left[place] for place in window] for window in pack([lengths[n] for n in left], capacity)]
        scores: dict[int, float] = {}
        for number, members in enumerate(windows):
            scores.update(zip(members, read(stage, number, members), strict=True))
        if len(windows) == 1:
            return
        left = _going_on(windows, scores, lengths, max(capacity, ROUND_SHARE * sum(lengths[n] for n in left)))
        stage += 1


def expected_tokens(lengths: Sequence[int], capacity: int) -> int:
    """About how many tokens a contest reads, all rounds together."""
    left = sum(lengths)
    total = left
    while left > capacity:
        left = max(capacity, int(ROUND_SHARE * left))
        total += left
    return total


def _going_on(
    windows: Sequence[Sequence[int]], scores: Mapping[int, float], lengths: Sequence[int], room: float
) -> list[int]:
    """The best piece of each window, then the best of all that fit `room` tokens; never all there are.

    Windows of a round are about equally long, so their scores compare well enough to choose by, and what belongs
    together is not torn apart by a quota for each window.
    """
    ranked = sorted(scores, key=lambda n: (-scores[n], n))
    first = [max(members, key=lambda n: (scores[n], -n)) for members in windows]
    kept = set(first)
    used = sum(lengths[n] for n in first)
    for number in ranked[: len(ranked) - 1]:
        if number not in kept and used + lengths[number] > room:
            break
        if number not in kept:
            used += lengths[number]
            kept.add(number)
    return sorted(kept)


@dataclass
class Standing:
    """How far one unit has come: the last round it was read in, its window there, its score and its share."""

    round: int = 0
    window: int = 0
    score: float = 0.0
    relevance: float = 0.0

    def record(self, stage: int, window: int, score: float, share: float, best: bool = False) -> None:
        """Take note of a reading; parts of one unit that are read in the same round add up, or the `best` counts."""
        if stage > self.round or (best and stage == self.round and score > self.score):
            self.round, self.window, self.score, self.relevance = stage, window, score, share
            return
        if best:
            return
        self.score += score
        if window == self.window:
            self.relevance += share
        elif share > self.relevance:
            self.window, self.relevance = window, share


def order_of(standings: Sequence[Standing]) -> list[int]:
    """Positions from best to worst: by round reached, then score, then position.

    From the best down, every relevance is lowered to that of the one before where it is above it: shares of windows
    that were lost are not comparable with those of the last one.
    """
    ranked = sorted(range(len(standings)), key=lambda i: (-standings[i].round, -standings[i].score, i))
    highest = 1.0
    for place in ranked:
        highest = standings[place].relevance = min(highest, standings[place].relevance)
    return ranked
