"""Explanation in a terminal: each document's strongest words, in their order, and the words around them.

Control, format and bidirectional characters are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.text import Text

from qr_core.display.terminal import plain

if TYPE_CHECKING:
    from qr_core.explain.explanation import ExplainedDocument, Explanation

AROUND = 2
"""Words shown before and after a strong one."""
STYLES = ((0.66, "bold reverse"), (0.33, "reverse"), (0.1, "underline"))
"""By share of the strongest word's mass; none needs colour."""


def show(found: Explanation, console: Console | None, words: int) -> None:
    """Print the documents, best first."""
    console = console or Console(highlight=False, markup=False)
    sums = [one.masses.sum(axis=0) for one in found.documents]
    most = max((float(row.max()) for row in sums if row.size), default=0.0)
    for place, (one, row) in enumerate(zip(found.documents, sums, strict=True), start=1):
        name = one.document.title or (one.document.id if one.document.id is not None else f"#{one.index}")
        console.print(Text(f"{place}  {one.score:.4f}  {one.relevance:.3f}  {plain(str(name), 80)}", style="bold"))
        console.print(_line(one, row, most, words))
    left_out = len(found.ranking) - len(found.documents)
    if left_out:
        console.print(f"and {left_out} more documents")


def _line(found: ExplainedDocument, sums: NDArray[np.float32], most: float, count: int) -> Text:
    strong = {int(place) for place in np.argsort(-sums, kind="stable")[:count] if sums[place] > 0}
    shown = sorted(
        {near for place in strong for near in range(place - AROUND, place + AROUND + 1)} & set(range(len(sums)))
    )
    line, before = Text("   "), -1
    for place in shown:
        start, end = found.words[place]
        gap = found.document.text[found.words[before][1] : start] if place == before + 1 and place else ""
        line.append(" … " if place > before + 1 else plain(gap) or (" " if gap else ""))
        share = float(sums[place]) / most if most > 0 else 0.0
        style = next((style for least, style in STYLES if place in strong and share >= least), "")
        line.append(plain(found.document.text[start:end]), style=style)
        before = place
    if shown and shown[-1] < len(sums) - 1:
        line.append(" …")
    return line
