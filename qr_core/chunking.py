"""Chunking: cut a text into units (paragraphs, sentences, turns) and passages, as spans of the original string.

Markdown blocks come from markdown-it-py, sentence borders from sentencex. Units never overlap, are never blank, and
leave out only the white space between them: every unit is `text[start:end]`.

Knows nothing of tokens, scores or budgets.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

from qr_core.checks import encodable

UnitName = Literal["document", "paragraph", "sentence", "turn"]
TextFormat = Literal["text", "markdown", "chat"]

LONGEST_UNIT = 2000
"""Characters. A longer sentence or paragraph without inner borders is cut at a blank, or just there."""
PASSAGE_WORDS = 100
"""A passage of raw text takes in whole blocks until it has so many words."""

_BLANK_LINES = re.compile(r"(?:\r\n?|\n)(?:[ \t\f\v]*(?:\r\n?|\n))+")
_LINE_ENDS = re.compile(r"\r\n?|\n")
_TURN = re.compile(
    r"^(?:\[[^\]\n]{1,40}\]\s*|\(?\d{1,2}:\d{2}(?::\d{2})?\)?\s+)?"  # a time or other mark
    r"\*{0,2}[^\W\d_][\w .'()-]{0,40}\*{0,2}:\*{0,2}(?=\s|$)"  # the speaker
)
_SESSION = re.compile(r"^(?:#{1,6}\s.*|[-=*_]{3,}\s*|(?:session|conversation|chat)\b[^\n:]{0,80}:?\s*)$", re.IGNORECASE)


@dataclass(frozen=True)
class Unit:
    """A part of a text.

    Attributes
    ----------
    start, end : int
        `text[start:end]`; neither begins nor ends with white space.
    whole : bool
        Whether smaller units must not cut it: a heading, list, table or code fence.
    level : int
        1 to 6 for a heading, else 0.
    headings : tuple of (int, int)
        Spans of the headings it stands under, outermost first.
    session : int
        Which session of a chat transcript it belongs to; 0 elsewhere.
    """

    start: int
    end: int
    whole: bool = False
    level: int = 0
    headings: tuple[tuple[int, int], ...] = ()
    session: int = 0


def units(text: str, unit: UnitName, text_format: TextFormat = "text") -> list[Unit]:
    """Cut `text` into units, in order.

    Parameters
    ----------
    text : str
    unit : str
        `document`: the whole text; `paragraph`: text between blank lines, or one block of Markdown, or one turn;
        `sentence`: paragraphs cut at sentence ends, but headings, lists, tables and code fences whole; `turn`: what
        one speaker says (needs a chat transcript).
    text_format : str
        `text`, `markdown`, or `chat` (lines such as `Anna: ...`; a turn goes on until the next such line; headings,
        rules and `Session ...` lines begin sessions).
    """
    if unit == "document":
        return [] if not text.strip() else [Unit(*_trimmed(text, 0, len(text)))]
    found = blocks(text, "chat" if unit == "turn" else text_format)
    if unit == "sentence":
        found = [part for block in found for part in _sentences(text, block)]
    return found


def blocks(text: str, text_format: TextFormat) -> list[Unit]:
    """Paragraphs of a text, top-level blocks of Markdown, or turns of a chat transcript."""
    if text_format == "markdown":
        return _markdown_blocks(text)
    if text_format == "chat":
        return _turns(text)
    borders = [0, *(match.end() for match in _BLANK_LINES.finditer(text)), len(text)]
    return list(_between(text, borders))


def passages(text: str, text_format: TextFormat = "text", words: int = PASSAGE_WORDS) -> list[Unit]:
    """Group consecutive blocks until each group has `words` words: what a raw text shows the scorer as documents.

    Headings begin a passage, sessions are not mixed, and paragraphs of more than twice `words` are cut at sentences.
    """
    pieces: list[Unit] = []
    for block in blocks(text, text_format):
        long = len(text[block.start : block.end].split()) > 2 * words
        pieces += _sentences(text, block) if long else [block]
    groups: list[Unit] = []
    count, closed = 0, True
    for piece in pieces:
        new_section = piece.level > 0 or (groups and groups[-1].session != piece.session)
        if closed or (new_section and not groups[-1].level):
            groups.append(replace(piece, whole=False))
            count = 0
        else:
            groups[-1] = replace(groups[-1], end=piece.end, level=piece.level)
        count += len(text[piece.start : piece.end].split())
        closed = count >= words
    return groups


def sessions(text: str) -> list[Unit]:
    """Sessions of a chat transcript."""
    found: list[Unit] = []
    for turn in _turns(text):
        if found and found[-1].session == turn.session:
            found[-1] = replace(found[-1], end=turn.end)
        else:
            found.append(turn)
    return found


def halves(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """`text[start:end]` cut in two at the white space nearest its middle, or just there."""
    middle = (start + end) // 2
    reach = max(1, (end - start) // 4)
    before = max((text.rfind(c, middle - reach, middle) for c in " \n\t"), default=-1)
    cut = before + 1 if before >= 0 else middle
    return [span for a, b in ((start, cut), (cut, end)) if (span := _trimmed(text, a, b))[0] < span[1]]


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    inside = text[start:end]
    return start + len(inside) - len(inside.lstrip()), start + len(inside.rstrip())


def _between(text: str, borders: Sequence[int], like: Unit | None = None) -> Iterator[Unit]:
    """Units between consecutive borders, trimmed, blank ones left out, overlong ones cut."""
    like = like or Unit(0, 0)
    for a, b in pairwise(borders):
        todo = [_trimmed(text, a, b)]
        while todo:
            start, end = todo.pop()
            if end - start > LONGEST_UNIT and not like.whole:
                todo += reversed(halves(text, start, end))
            elif start < end:
                yield replace(like, start=start, end=end)


def _sentences(text: str, block: Unit) -> list[Unit]:
    if block.whole:
        return [block]
    from sentencex import get_sentence_boundaries

    inside = encodable(text[block.start : block.end])
    ends = [block.start + int(found["end_index"]) for found in get_sentence_boundaries("en", inside)]
    borders = sorted({block.start, *ends, block.end})
    return list(_between(text, borders, block))


def _markdown_blocks(text: str) -> list[Unit]:
    """Top-level blocks, each under its headings. Lists, tables, code, quotes and HTML are whole."""
    from markdown_it import MarkdownIt

    # The parser counts lines after making each of these one newline; so do we, on the original.
    line_starts = [0, *(match.end() for match in _LINE_ENDS.finditer(text)), len(text)]
    found: list[Unit] = []
    above: list[tuple[int, tuple[int, int]]] = []
    free = 0
    for token in MarkdownIt("commonmark", {"html": True}).enable("table").parse(encodable(text)):
        if token.level or token.map is None or token.nesting < 0:
            continue
        first, last = line_starts[token.map[0]], line_starts[min(token.map[1], len(line_starts) - 1)]
        start, end = _trimmed(text, max(free, first), last)
        if start >= end:
            continue
        found += _rest(text, free, start, above)
        level = int(token.tag[1]) if token.type == "heading_open" else 0
        if level:
            above = [heading for heading in above if heading[0] < level]
        block = Unit(start, end, token.type != "paragraph_open", level, tuple(span for _, span in above))
        found += [block] if block.whole else _between(text, [start, end], block)
        if level:
            above.append((level, (start, end)))
        free = end
    return found + _rest(text, free, len(text), above)


def _rest(text: str, start: int, end: int, above: Sequence[tuple[int, tuple[int, int]]]) -> list[Unit]:
    """What the parser passes over between blocks (link definitions): kept, so that nothing is lost."""
    return list(_between(text, [start, end], Unit(0, 0, headings=tuple(span for _, span in above))))


def _turns(text: str) -> list[Unit]:
    """Turns, each from the line that names its speaker to the next such line; session lines are units of their own."""
    found: list[Unit] = []
    session, start, place = 0, 0, 0
    lines = [*_LINE_ENDS.finditer(text)]
    for line_end in [*(m.end() for m in lines), len(text)]:
        line = text[place:line_end].strip()
        is_session = bool(_SESSION.match(line))
        if is_session or _TURN.match(line):
            found += _between(text, [start, place], Unit(0, 0, session=session))
            start = place
        if is_session:
            session += 1
            found += _between(text, [place, line_end], Unit(0, 0, whole=True, level=1, session=session))
            start = line_end
        place = line_end
    return found + list(_between(text, [start, len(text)], Unit(0, 0, session=session)))
