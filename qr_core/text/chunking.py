"""Chunking: cut a text into paragraphs, sentences, turns and passages, as spans of the original string.

Markdown blocks come from markdown-it-py, sentence borders from sentencex. Units never overlap, are never blank, and
leave out only the white space between them: every unit is `text[start:end]`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

from qr_core.checks import encodable
from qr_core.text import transcripts

TextFormat = Literal["text", "markdown", "chat"]

LONGEST_UNIT = 2000
"""Characters. A longer sentence is cut at a blank, or at this length where it has none."""
PASSAGE_WORDS = 100
"""A passage of raw text takes in whole blocks until it has at least this many words."""

_LINE_END = r"(?:\r\n|\n|\r(?!\n))"
_LINE_ENDS = re.compile(_LINE_END)
_BLANK_LINES = re.compile(rf"{_LINE_END}(?:[ \t\f\v]*{_LINE_END})+")


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


def blocks(text: str, text_format: TextFormat) -> list[Unit]:
    """Paragraphs of a text, top-level blocks of Markdown, or turns of a chat (see `qr_core.text.transcripts`)."""
    if text_format == "markdown":
        return _markdown_blocks(text)
    if text_format == "chat":
        return _turns(text)
    borders = [0, *(match.end() for match in _BLANK_LINES.finditer(text)), len(text)]
    return [Unit(start, end) for a, b in pairwise(borders) for start, end in [_trimmed(text, a, b)] if start < end]


def sentences(text: str, text_format: TextFormat = "text") -> list[Unit]:
    """Blocks cut at sentence ends; headings, lists, tables and code fences stay whole."""
    return [part for block in blocks(text, text_format) for part in _sentences(text, block)]


def passages(text: str, text_format: TextFormat = "text", words: int = PASSAGE_WORDS) -> list[Unit]:
    """Group consecutive blocks until each group has `words` words: how one raw text is shown to the scorer.

    Headings begin a passage, sessions are not mixed, and paragraphs of more than twice `words` are cut at sentences.
    """
    parts: list[Unit] = []
    for block in blocks(text, text_format):
        long = len(text[block.start : block.end].split()) > 2 * words
        parts += _sentences(text, block) if long else [block]
    groups: list[Unit] = []
    count, closed = 0, True
    for part in parts:
        new_section = part.level > 0 or (groups and groups[-1].session != part.session)
        if closed or (new_section and not groups[-1].level):
            groups.append(replace(part, whole=False))
            count = 0
        else:
            groups[-1] = replace(groups[-1], end=part.end, level=part.level)
        count += len(text[part.start : part.end].split())
        closed = count >= words
    return groups


def _turns(text: str) -> list[Unit]:
    """Turns of a chat transcript; the lines that begin a session are units of their own."""
    return [
        Unit(start, end, whole=begins, level=int(begins), session=session)
        for a, b, session, begins in transcripts.turns(text)
        for start, end in [_trimmed(text, a, b)]
        if start < end
    ]


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
    cut = before + 1 if before >= 0 else _whole_character(text, middle, end)
    return [span for a, b in ((start, cut), (cut, end)) if (span := _trimmed(text, a, b))[0] < span[1]]


def _whole_character(text: str, place: int, end: int) -> int:
    """The next place, from `place` on, that does not part a letter from its accents or an emoji from its parts."""
    reach = min(end, place + 32)
    while place < reach and (
        unicodedata.category(text[place]) in ("Mn", "Me", "Mc") or "\u200d" in text[place - 1 : place + 1]
    ):
        place += 1
    return place


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    inside = text[start:end]
    return start + len(inside) - len(inside.lstrip()), start + len(inside.rstrip())


def _sentences(text: str, block: Unit) -> list[Unit]:
    if block.whole:
        return [block]
    from sentencex import get_sentence_boundaries

    inside = encodable(text[block.start : block.end])
    ends = [block.start + int(found["end_index"]) for found in get_sentence_boundaries("en", inside)]
    found = []
    for a, b in pairwise(sorted({block.start, *ends, block.end})):
        todo = [_trimmed(text, a, b)]
        while todo:
            start, end = todo.pop()
            if end - start > LONGEST_UNIT:
                todo += reversed(halves(text, start, end))
            elif start < end:
                found.append(replace(block, start=start, end=end))
    return found


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
        found.append(block)
        if level:
            above.append((level, (start, end)))
        free = end
    return found + _rest(text, free, len(text), above)


def _rest(text: str, start: int, end: int, above: Sequence[tuple[int, tuple[int, int]]]) -> list[Unit]:
    """What the parser passes over between blocks (link definitions): kept, so that nothing is lost."""
    start, end = _trimmed(text, start, end)
    return [Unit(start, end, headings=tuple(span for _, span in above))] if start < end else []
