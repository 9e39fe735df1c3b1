"""Chunking: cut a text into paragraphs, sentences, turns and passages, as spans of the original string.

Markdown blocks come from markdown-it-py, ends of sentences from `borders`. Units never overlap, are never blank, and
leave out only the white space between them: every unit is `text[start:end]`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

from qr_core.checks import encodable
from qr_core.text import transcripts
from qr_core.text.borders import LONGEST_UNIT, halves, sentence_ends, trimmed

TextFormat = Literal["text", "markdown", "chat"]

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
    return [Unit(start, end) for a, b in pairwise(borders) for start, end in [trimmed(text, a, b)] if start < end]


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
        for start, end in [trimmed(text, a, b)]
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


def _sentences(text: str, block: Unit) -> list[Unit]:
    if block.whole:
        return [block]
    ends = [block.start + end for end in sentence_ends(text[block.start : block.end])]
    found = []
    for a, b in pairwise((block.start, *ends)):
        todo = [trimmed(text, a, b)]
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
    # What stands inside a block does not matter here, and takes quadratic time for some runs of marks.
    parser = MarkdownIt("commonmark", {"html": True}).enable("table").disable("inline")
    for token in parser.parse(encodable(text)):
        if token.level or token.map is None or token.nesting < 0:
            continue
        first, last = line_starts[token.map[0]], line_starts[min(token.map[1], len(line_starts) - 1)]
        start, end = trimmed(text, max(free, first), last)
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
    start, end = trimmed(text, start, end)
    return [Unit(start, end, headings=tuple(span for _, span in above))] if start < end else []
