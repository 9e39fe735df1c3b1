"""Transcripts: which lines of a chat begin a turn, and which begin a session.

A turn goes on until the next line that names a speaker: `Anna: ...`, `**Anna:** ...`, `[10:32] Anna: ...`,
`Anna (10:32): ...`, `02/01/2024, 10:32 - Anna: ...`, `<anna> ...`, `[user]: ...`. A session begins with a line such as
`Session 2`, or with a heading or a rule right before a turn. Lines inside code fences begin nothing.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

_LINES = re.compile(r"[^\r\n]*(?:\r\n|\n|\r|$)")
_TIME = r"(?:\d{1,4}[/.-]\d{1,2}[/.-]\d{1,4},?[ T])?\s?\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?(?:\s?[AaPp]\.?[Mm]\.?)?"
_STAMP = re.compile(rf"(?:\[[^\]\n]{{0,20}}{_TIME}[^\]\n]{{0,10}}\]|\({_TIME}\)|{_TIME})\s*(?:[-\u2013\u2014]\s*)?")
_LABEL = re.compile(
    r"(?P<mark>\*{1,2}|\[)?(?P<name>[^\s:\uff1a\[\]<>|{}=;\"`*][^:\uff1a\r\n\[\]<>|{}=;\"`*]{0,39}?)[\]*]{0,2}"
    rf"(?P<stamp>\s*[\[(]{_TIME}[\])])?(?:\uff1a|:\*{{0,2}}(?=\s|$))"
)
_ANGLED = re.compile(r"<(?P<name>[^\W\d_][^<>/=\r\n]{0,39})>\s+\S")
_SESSION = re.compile(r"(?:session|conversation|chat)(?:\s+#?\d+\b.*|\s*[:\u2014\u2013].*)?$", re.IGNORECASE)
_RULE = re.compile(r"#{1,6}\s.*$|[-=*_]{3,}$")
_FENCE = re.compile(r"(?:```|~~~)")
_ROLES = {
    "user", "assistant", "system", "human", "ai", "bot", "agent", "tool", "developer", "model", "customer", "support",
    "me", "you", "q", "a",
}  # fmt: skip
_NO_SPEAKERS = {
    "note", "notes", "warning", "caution", "tip", "hint", "example", "examples", "todo", "ps", "important", "update",
    "edit", "result", "results", "answer", "question", "step", "steps", "summary", "subject", "date", "from", "to",
    "cc", "re", "fwd", "fw", "attachment", "location", "source", "sources", "error", "output", "input", "usage", "http",
    "https",
}  # fmt: skip
_PARTICLES = {
    "and", "und", "et", "y", "von", "van", "de", "da", "di", "del", "der", "den", "la", "le", "of", "bin", "al",
}  # fmt: skip
_TAGS = {
    "a", "b", "i", "p", "u", "br", "hr", "li", "ol", "ul", "td", "tr", "th", "em", "div", "pre", "span", "code",
    "table",
}  # fmt: skip
LONGEST_NAME = 4
"""Words."""


def names_speaker(line: str) -> bool:
    """Whether a line begins somebody's turn."""
    stamp = _STAMP.match(line)
    rest = line[stamp.end() :] if stamp else line
    angled = _ANGLED.match(rest)
    if angled:
        return angled["name"].lower() not in _TAGS
    label = _LABEL.match(rest)
    if not label:
        return False
    name, said = label["name"].strip(), rest[label.end() :].strip()
    words = name.split()
    if not words or len(words) > LONGEST_NAME or unicodedata.category(name[0])[0] not in "LS":
        return False
    if stamp or label["mark"] or label["stamp"] or name.lower() in _ROLES:
        return True
    if not said or words[0].lower().rstrip(".0123456789") in _NO_SPEAKERS:
        return False
    if re.search(r"[(){}\\/+]", re.sub(r"\s\([\w .-]+\)$", "", name)):  # Anna (Sales) is a name, f(x) is none
        return False
    return not any(word[0].islower() for word in words if word.lower() not in _PARTICLES) and not words[0][0].islower()


def turns(text: str) -> Iterator[tuple[int, int, int, bool]]:
    """Consecutive parts of a transcript, as (start, end, session, whether it is a line that begins the session).

    Parts cover the text; what stands before the first speaker is a part of session 0.
    """
    lines = [match.span() for match in _LINES.finditer(text) if match.end() > match.start()]
    plain = [text[start:end].strip() for start, end in lines]
    starts = [False] * len(lines)
    rules = [False] * len(lines)
    fenced = False
    for number, line in enumerate(plain):
        if _FENCE.match(line):
            fenced = not fenced
        elif not fenced:
            starts[number] = names_speaker(line)
            rules[number] = bool(_SESSION.match(line) or _RULE.match(line))
    session, begin = 0, 0
    before_turn = False  # whether the next line that is not blank names a speaker or begins a session
    opens = [False] * len(lines)
    for number in range(len(lines) - 1, -1, -1):
        if plain[number]:
            opens[number] = rules[number] and (before_turn or bool(_SESSION.match(plain[number])))
            before_turn = starts[number] or opens[number]
    for number, (start, end) in enumerate(lines):
        if not (starts[number] or opens[number]):
            continue
        if start > begin:
            yield begin, start, session, False
        begin = start
        if opens[number]:
            session += 1
            yield start, end, session, True
            begin = end
    if begin < len(text):
        yield begin, len(text), session, False
