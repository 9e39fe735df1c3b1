"""Pruning: choose scored units within a token budget and put them together again, in document order.

Extractive: what is kept is `text[start:end]` of the original, nothing is rewritten. Tokens are counted by a function
that the caller hands in.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from qr_core.checks import check_share, check_whole_number
from qr_core.display.wording import titled
from qr_core.errors import InputError
from qr_core.text.counting import Count
from qr_core.types import Document, Span

FURTHER_TRIES = 64
"""Units beyond the first choice that are tried one by one, with the whole text counted each time."""
_BLANK_LINE = re.compile(r"\n[ \t]*\n")


@dataclass(frozen=True)
class Budget:
    """What may be kept; a unit must pass every rule that is set.

    Attributes
    ----------
    max_tokens : int, optional
        Of the rendered text. Never exceeded; a unit that does not fit is passed over for the next that does.
    top_k : int, optional
        At most this many units, the best ones.
    min_relevance : float, optional
        Only units of at least this relevance.
    min_keep : int
        This many of the best units are kept whatever their relevance; `max_tokens` still holds.
    """

    max_tokens: int | None = None
    top_k: int | None = None
    min_relevance: float | None = None
    min_keep: int = 0

    def __post_init__(self) -> None:
        """Check the values.

        Raises
        ------
        InputError
            Naming the one at fault.
        """
        check_whole_number("max_tokens", self.max_tokens)
        check_whole_number("top_k", self.top_k)
        check_whole_number("min_keep", self.min_keep, least=0)
        if self.min_relevance is not None:
            check_share("min_relevance", self.min_relevance)
        if self.max_tokens is None and self.top_k is None and self.min_relevance is None:
            raise InputError("nothing says how much to keep: pass max_tokens, top_k or min_relevance")


@dataclass(frozen=True)
class Rendering:
    """How kept parts are put together.

    Attributes
    ----------
    ellipsis : str, optional
        Put where something was left out, for example `[...]`; by default nothing but white space.
    headings : bool
        Keep the headings that kept parts stand under.
    titles : bool
        Begin each document with its title.
    markdown : bool
        Where whole lines were left out, put a blank line between their neighbours, so that blocks stay blocks.
    """

    ellipsis: str | None = None
    headings: bool = False
    titles: bool = False
    markdown: bool = False


@dataclass(frozen=True)
class Candidate:
    """A unit that may be kept: `documents[index].text[start:end]`, best ones first in a list of them."""

    index: int
    start: int
    end: int
    score: float
    relevance: float
    headings: tuple[tuple[int, int], ...] = ()


def whole_tokens(documents: Sequence[Document], rendering: Rendering, count: Count) -> int:
    """Tokens of all of `documents`, joined by a blank line, titles included where they are rendered."""
    whole = (titled(d.title if rendering.titles else None, d.text) for d in documents)
    return count("\n\n".join(whole)) if documents else 0


def select(
    documents: Sequence[Document], ranked: Sequence[Candidate], budget: Budget, rendering: Rendering, count: Count
) -> tuple[list[Span], list[tuple[int, str]], int]:
    """Choose among `ranked`, best first, and render what is kept.

    A first choice goes by the sum of the parts' tokens. Then the rendered text is counted: the worst are dropped while
    it is too long, and others are tried in their place while it is not.

    Returns
    -------
    tuple of (list of Span, list of (int, str), int)
        Kept spans in document order, each document's rendered text, and the tokens of these texts, joined by a blank
        line.
    """
    allowed = [
        unit
        for place, unit in enumerate(ranked[: budget.top_k])
        if budget.min_relevance is None or unit.relevance >= budget.min_relevance or place < budget.min_keep
    ]

    def rendered(chosen: Sequence[Candidate]) -> tuple[list[Span], list[tuple[int, str]], int]:
        spans = _spans(chosen, rendering)
        texts = render(documents, spans, rendering)
        return spans, texts, count("\n\n".join(text for _, text in texts)) if texts else 0

    if budget.max_tokens is None:
        return rendered(allowed)
    chosen = _fitting(documents, allowed, budget.max_tokens, rendering, count)
    found = rendered(chosen)
    while found[2] > budget.max_tokens:  # the worst go first, about as many as are over
        over = found[2] - budget.max_tokens
        while over > 0 and chosen:
            worst = chosen.pop()
            over -= max(1, count(documents[worst.index].text[worst.start : worst.end]))
        found = rendered(chosen)
    kept = set(chosen)
    for unit in [unit for unit in allowed if unit not in kept][:FURTHER_TRIES]:
        more = rendered([*chosen, unit])
        if more[2] <= budget.max_tokens:
            chosen.append(unit)
            found = more
    return found


def _fitting(
    documents: Sequence[Document], allowed: Sequence[Candidate], room: int, rendering: Rendering, count: Count
) -> list[Candidate]:
    """Candidates that fit together by the sum of what they add, marks included."""
    chosen: list[Candidate] = []
    paid: set[tuple[int, int, int]] = set()
    titled: set[int] = set()
    alone = count("")  # what a tokenizer adds to every text
    marks = 2 * (count(f" {rendering.ellipsis}") - alone) if rendering.ellipsis else 0
    room -= alone
    for unit in allowed:
        text = documents[unit.index].text
        new = {(unit.index, unit.start, unit.end)}
        if rendering.headings:
            new |= {(unit.index, *span) for span in unit.headings} - paid
        title = documents[unit.index].title
        cost = marks + sum(count(text[start:end]) - alone for _, start, end in new)
        if rendering.titles and title and unit.index not in titled:
            cost += count(f"{title}\n") - alone
        if cost <= room:
            room -= cost
            paid |= new
            titled.add(unit.index)
            chosen.append(unit)
        if room <= 0:
            break
    return chosen


def _spans(chosen: Iterable[Candidate], rendering: Rendering) -> list[Span]:
    """Kept spans in document order, each once; headings of kept parts among them where asked for."""
    kept = {(unit.index, unit.start, unit.end): unit.score for unit in chosen}
    spans = [Span(index, start, end, score) for (index, start, end), score in kept.items()]
    if rendering.headings:
        above = {(unit.index, *span) for unit in chosen for span in unit.headings}
        ends = sorted((index, end) for index, _, end in kept)
        starts = sorted((index, start) for index, start, _ in kept)
        for index, start, end in above:
            place = bisect_right(ends, (index, start))  # the first kept part that ends after the heading begins
            if place == len(ends) or starts[place] >= (index, end):
                spans.append(Span(index, start, end, 0.0, heading=True))
    return sorted(spans, key=lambda span: (span.index, span.start))


def render(documents: Sequence[Document], spans: Sequence[Span], rendering: Rendering) -> list[tuple[int, str]]:
    """The kept text of each document that has some, with the document's position.

    Between two spans stands what stood there, if that was white space; else the ellipsis, or a blank line, line end or
    blank, whichever the left-out part had.
    """
    texts: list[tuple[int, list[str]]] = []
    mark = rendering.ellipsis
    place = 0
    for number, span in enumerate(spans):
        text = documents[span.index].text
        if not texts or texts[-1][0] != span.index:
            title = documents[span.index].title
            texts.append((span.index, [f"{title}\n"] if rendering.titles and title else []))
            before = text[: span.start]
            joint = f"{mark}{_gap(before[len(before.rstrip()) :])}" if mark and before.strip() else ""
        else:
            joint = _joint(text[place : span.start], rendering)
        texts[-1][1].extend((joint, text[span.start : span.end]))
        place = span.end
        last = number + 1 == len(spans) or spans[number + 1].index != span.index
        if last and mark and (after := text[place:]).strip():
            texts[-1][1].append(f"{_gap(after[: len(after) - len(after.lstrip())])}{mark}")
    return [(index, "".join(pieces)) for index, pieces in texts]


def _joint(between: str, rendering: Rendering) -> str:
    if not between.strip():
        return between
    gap = _gap(between)
    if gap == "\n" and rendering.markdown and "\n" in _plain_lines(between).removesuffix("\n"):
        gap = "\n\n"  # what stood on lines of its own is gone: its neighbours must not run together
    return f"{gap}{rendering.ellipsis}{gap}" if rendering.ellipsis else gap


def _gap(white: str) -> str:
    """A blank line, line end or blank, whichever is in a piece of text."""
    lines = _plain_lines(white)
    return "\n\n" if _BLANK_LINE.search(lines) else "\n" if "\n" in lines else " "


def _plain_lines(text: str) -> str:
    """`text` with every line end a newline."""
    return text.replace("\r\n", "\n").replace("\r", "\n")
