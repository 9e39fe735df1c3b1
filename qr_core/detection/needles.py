"""Needles: sentences hidden in a long text, and questions that only they answer.

Knows nothing of models: the length of a text comes from a function that the caller hands in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from qr_core.errors import InputError
from qr_core.files.inputs import documents_from_json_lines, json_lines, read_text
from qr_core.text.chunking import sentences
from qr_core.text.counting import Count


@dataclass(frozen=True)
class Needle:
    """A sentence to hide, a question about it, and the part of the sentence that answers."""

    sentence: str
    question: str
    answer: str


NEEDLES = (
    Needle(
        "The spare key of the observatory hangs behind the portrait of Ada Merrow.",
        "Where does the spare key of the observatory hang?",
        "behind the portrait of Ada Merrow",
    ),
    Needle(
        "Captain Lind always drank buttermilk with nutmeg before a storm.",
        "What did Captain Lind drink before a storm?",
        "buttermilk with nutmeg",
    ),
    Needle(
        "The password of the old lift is seven green herons.",
        "What is the password of the old lift?",
        "seven green herons",
    ),
    Needle(
        "In Torvik the best thing to do on a rainy day is to polish the brass whales in the customs hall.",
        "What is the best thing to do in Torvik on a rainy day?",
        "polish the brass whales in the customs hall",
    ),
)


@dataclass(frozen=True)
class Hidden:
    """A needle in its haystack: `text[start:end]` is the sentence."""

    needle: Needle
    text: str
    start: int
    end: int
    depth: float


def default_haystack() -> str:
    """The demo's articles, one after the other."""
    raw = files("qr_core.demo").joinpath("articles.jsonl").read_text("utf-8")
    return "\n\n".join(document.text for document in documents_from_json_lines(raw, "articles.jsonl"))


def read_needles(path: Path) -> list[Needle]:
    """Needles from JSON lines with `needle`, `question` and `answer`, which must be part of the needle.

    Raises
    ------
    InputError
        Naming the line at fault.
    """
    found = []
    for number, row in json_lines(read_text(path), str(path)):
        values = [row.get(name) for name in ("needle", "question", "answer")]
        if not all(isinstance(value, str) and value.strip() for value in values):
            raise InputError(f"{path}, line {number}: expected the strings 'needle', 'question' and 'answer'")
        needle = Needle(*map(str, values))
        if needle.answer not in needle.sentence:
            raise InputError(f"{path}, line {number}: the answer is not part of the needle")
        found.append(needle)
    if not found:
        raise InputError(f"{path} holds no needles")
    return found


def hidden_needles(
    count: Count,
    lengths: Sequence[int],
    depths: Sequence[float],
    haystack: Path | None = None,
    needles: Path | None = None,
) -> list[Hidden]:
    """Each needle at each depth of a text of each length.

    Parameters
    ----------
    count : Count
        Measures texts in tokens.
    haystack, needles : Path, optional
        Files of them; by default the demo's articles, and `NEEDLES`.

    Raises
    ------
    InputError
        As for `hide` and `read_needles`.
    """
    text = default_haystack() if haystack is None else read_text(haystack)
    chosen = NEEDLES if needles is None else read_needles(needles)
    return [hide(text, needle, depth, length, count) for length in lengths for depth in depths for needle in chosen]


def hide(haystack: str, needle: Needle, depth: float, tokens: int | None, count: Count) -> Hidden:
    """Put a needle between two sentences of a haystack.

    Parameters
    ----------
    haystack : str
        Repeated where it is too short, cut at a sentence's end where it is too long.
    depth : float
        0 puts the needle first, 1 last.
    tokens : int, optional
        At most this many in all, by `count`; by default all of the haystack is used, once.

    Raises
    ------
    InputError
        When the haystack is blank, or `tokens` leave no room for a sentence of it.
    """
    parts = [haystack[unit.start : unit.end] for unit in sentences(haystack)]
    if not parts:
        raise InputError("the haystack is blank")
    if tokens is not None:
        parts = _filled(parts, tokens - count(needle.sentence) - 1, count)
    place = round(depth * len(parts))
    before, after = " ".join(parts[:place]), " ".join(parts[place:])
    start = len(before) + 1 if before else 0
    text = " ".join(piece for piece in (before, needle.sentence, after) if piece)
    return Hidden(needle, text, start, start + len(needle.sentence), depth)


def _filled(parts: Sequence[str], room: int, count: Count) -> list[str]:
    costs = [count(part) + 1 for part in parts]
    found: list[str] = []
    while room > 0:
        number = len(found) % len(parts)
        room -= costs[number]
        if room >= 0:
            found.append(parts[number])
    if not found:
        raise InputError("there is no room for a sentence around the needle: allow more tokens")
    return found
