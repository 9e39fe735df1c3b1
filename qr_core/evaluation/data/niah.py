"""Needle in a haystack as a ranking: texts of several lengths, a sentence at several depths, passages to rank.

Texts are measured by a function that the caller hands in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from qr_core.checks import check_whole_number
from qr_core.detection.needles import NEEDLES, Hidden, Needle, default_haystack, hide, read_needles
from qr_core.errors import InputError
from qr_core.evaluation.work import CandidateSet, Expected, Request, Work
from qr_core.files.inputs import read_text
from qr_core.text.chunking import passages, sentences
from qr_core.text.counting import Count
from qr_core.types import Document


def niah_work(request: Request) -> Work:
    """The grid that the options describe, in the text that the data names, by default the demo's articles."""
    options = request.options
    haystack = default_haystack() if options.data is None else read_text(options.data)
    needles = NEEDLES if options.needles is None else read_needles(options.needles)
    return needle_grid(haystack, needles, options.lengths, options.depths, request.count)


def needle_grid(
    haystack: str, needles: Sequence[Needle], lengths: Sequence[int], depths: Sequence[float], count: Count
) -> Work:
    """Each needle at each depth of a text of each length, cut into passages of about 100 words.

    The passage that holds the needle is the only gold: a passage that begins within the needle begins after it
    instead, so that the sentence is never cut.

    Parameters
    ----------
    haystack : str
        Repeated where it is shorter than a length; a note says so.
    needles : sequence of Needle
    lengths : sequence of int
        Tokens of the whole text by `count`, of which up to a sentence may be missing.
    depths : sequence of float
        0 puts the needle first, 1 last.
    count : Count
        Called once for each distinct sentence, never with a whole text.

    Returns
    -------
    Work
        Queries called `n<needle>-l<length>-d<depth>`; `Work.grid` has the length and depth of each.

    Raises
    ------
    InputError
        When there is nothing to hide or to hide it in, a number makes no sense, or the haystack holds a needle already.
    """
    _check(haystack, needles, lengths, depths)
    counted = cache(count)
    sets: list[CandidateSet] = []
    qrels: dict[str, dict[str, int]] = {}
    expected: dict[str, Expected] = {}
    cells: dict[str, tuple[int, float]] = {}
    single = set()
    for length in lengths:
        for depth in depths:
            for number, given in enumerate(needles):
                needle = replace(given, sentence=given.sentence.strip())
                query_id = f"n{number}-l{length}-d{depth:g}"
                if query_id in cells:
                    raise InputError(f"length {length} at depth {depth:g} is asked for twice: name each once")
                documents, gold = _documents(hide(haystack, needle, depth, length, counted))
                sets.append(CandidateSet(query_id, needle.question, documents))
                qrels[query_id] = {gold: 1}
                expected[query_id] = Expected(needle.question, needle.answer, f"{length} tokens")
                cells[query_id] = (length, depth)
                if len(documents) == 1:
                    single.add(length)
    return Work(sets, qrels, expected, _notes(haystack, needles, lengths, single, counted), cells)


def _documents(hidden: Hidden) -> tuple[tuple[Document, ...], str]:
    """A text's passages, and the id of the one that holds the whole needle."""
    documents: list[Document] = []
    gold = ""
    for unit in passages(hidden.text):
        start, end = unit.start, unit.end
        if start <= hidden.start < end:
            gold, end = str(len(documents)), max(end, hidden.end)
        elif hidden.start < start < hidden.end:
            start = min(hidden.end, end)
        if text := hidden.text[start:end].strip():
            documents.append(Document(text, id=str(len(documents))))
    return tuple(documents), gold


def _notes(
    haystack: str, needles: Sequence[Needle], lengths: Sequence[int], single: set[int], count: Count
) -> tuple[str, ...]:
    costs = [count(haystack[unit.start : unit.end]) + 1 for unit in sentences(haystack)]
    once = sum(costs) + min(count(needle.sentence.strip()) + 1 for needle in needles)
    notes = []
    if repeated := [length for length in lengths if length >= once + costs[0]]:
        notes.append(f"the haystack has about {sum(costs)} tokens: it is repeated for lengths of {_listed(repeated)}")
    if single:
        notes.append(f"texts of {_listed(sorted(single))} tokens are one passage: every ranking of them is right")
    return tuple(notes)


def _listed(lengths: Sequence[int]) -> str:
    return ", ".join(map(str, lengths))


def _check(haystack: str, needles: Sequence[Needle], lengths: Sequence[int], depths: Sequence[float]) -> None:
    named: tuple[tuple[str, Sequence[Any]], ...] = (("needles", needles), ("lengths", lengths), ("depths", depths))
    for name, values in named:
        if not values:
            raise InputError(f"no {name}: pass at least one")
    for length in lengths:
        check_whole_number("a length", length)
    for depth in depths:
        if isinstance(depth, bool) or not isinstance(depth, int | float) or not 0 <= depth <= 1:
            raise InputError(f"a depth is {depth!r}: use a number from 0 to 1")
    for number, needle in enumerate(needles):
        if not needle.sentence.strip():
            raise InputError(f"needle {number} is blank: pass a sentence")
        if needle.sentence.strip() in haystack:
            raise InputError(f"the haystack holds needle {number} already: leave it out, or use another haystack")
