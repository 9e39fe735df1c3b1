"""Borders: where a text may be cut, at the ends of sentences or, in a part without any, near its middle.

Sentence ends come from sentencex, which gets a slice of bounded length at a time: it needs quadratic time for some runs
of marks, and holds the interpreter's lock meanwhile. Knows nothing of paragraphs, formats and units.
"""

from __future__ import annotations

import re
import unicodedata

from qr_core.checks import encodable

LONGEST_UNIT = 2000
"""Characters. A longer sentence is cut at a blank, or at this length where it has none."""
SLICE = 4096
"""Most characters that the splitter gets at once."""
_REACH = 512
"""A slice ends at a blank among its last characters, where there is one."""
_WIDE_BLANKS = re.compile(r"[^\S\x00-\x7f]")
_MARKS = re.compile("[.!?\u2026\u3002\uff01\uff1f]+[\"'\u201d\u2019\u00bb)\\]]*")


def sentence_ends(text: str) -> list[int]:
    """Where sentences end, ascending, the text's own end last. White space after a sentence belongs to it.

    Work is linear in the text. Where a text is longer than `SLICE`, the next slice begins with the sentence that the
    last one broke off, or, if that is longer than `LONGEST_UNIT` and so will be cut anyway, just behind it.
    """
    # The splitter fails on a capital, a blank of several bytes and a full stop; blanks are one character each.
    plain = _WIDE_BLANKS.sub(" ", encodable(text))
    ends: list[int] = []
    place = 0
    while place < len(plain):
        stop = _slice_end(plain, place)
        found = [place + end for end in _ends(plain[place:stop])]
        if stop < len(plain):
            broken_off = found[-2] if len(found) > 1 else place
            if stop - broken_off <= LONGEST_UNIT:
                found.pop()
        ends += found
        place = found[-1]
    return ends


def _slice_end(text: str, place: int) -> int:
    stop = place + SLICE
    if stop >= len(text):
        return len(text)
    blank = max(text.rfind(c, stop - _REACH, stop) for c in " \n\t")
    return blank + 1 if blank >= 0 else _whole_character(text, stop - _REACH, stop)


def _ends(part: str) -> list[int]:
    """Where sentences of a part end, ascending; the last is the part's end."""
    from sentencex import get_sentence_boundaries

    try:
        found = [int(one["end_index"]) for one in get_sentence_boundaries("en", part)]
    except BaseException as error:  # a panic of the library is no Exception
        if type(error).__module__ != "pyo3_runtime":
            raise
        marks = (match.end() for match in _MARKS.finditer(part))
        found = [end for end in marks if part[end : end + 1].isspace()]
    return sorted({end for end in found if 0 < end < len(part)} | {len(part)})


def halves(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """`text[start:end]` cut in two at the white space nearest its middle, or just there."""
    middle = (start + end) // 2
    reach = max(1, (end - start) // 4)
    before = max((text.rfind(c, middle - reach, middle) for c in " \n\t"), default=-1)
    cut = before + 1 if before >= 0 else _whole_character(text, middle, end)
    return [span for a, b in ((start, cut), (cut, end)) if (span := trimmed(text, a, b))[0] < span[1]]


def _whole_character(text: str, place: int, end: int) -> int:
    """The next place, from `place` on, that does not part a letter from its accents or an emoji from its parts."""
    reach = min(end, place + 32)
    while place < reach and (
        unicodedata.category(text[place]) in ("Mn", "Me", "Mc") or "\u200d" in text[place - 1 : place + 1]
    ):
        place += 1
    return place


def trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """`text[start:end]` without the white space around it."""
    inside = text[start:end]
    return start + len(inside) - len(inside.lstrip()), start + len(inside.rstrip())
