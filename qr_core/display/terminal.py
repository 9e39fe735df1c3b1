"""Terminal: untrusted text and rankings as a person reads them."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qr_core.types import Hit, Ranking

_BLANKS = re.compile(r"\s+")
ID_WIDTH = 24
_UNSAFE = {"Cc", "Cf", "Cs", "Co", "Cn"}


def plain(text: str, width: int | None = None) -> str:
    """`text` on one line, without control, format and bidirectional characters, cut to `width` characters."""
    line = _BLANKS.sub(" ", text).strip()
    if width is not None:
        line = line[: width * 2]
    line = "".join(c for c in line if unicodedata.category(c) not in _UNSAFE)
    return line if width is None or len(line) <= width else line[: width - 1] + "…"


def safe_lines(text: str) -> str:
    """`text` with its lines and tabs, without other control, format and bidirectional characters."""
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in _UNSAFE)


class SafeConsole(Console):
    """A console from which no text, wherever it came from, steers the terminal; styles are the console's own."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render, without control characters in texts."""
        for part in super().render(renderable, options):
            yield part if part.control else Segment(safe_lines(part.text), part.style)


def _name(hit: Hit) -> str:
    """The document's id, or `#` and its position where it has none."""
    return f"#{hit.index}" if hit.document.id is None else str(hit.document.id)


def show_ranking(console: Console, ranking: Ranking, limit: int | None = None) -> None:
    """Print a table of hits: rank, score, relevance, id, and the beginning of the document."""
    table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    longest_id = max((len(plain(_name(hit), ID_WIDTH)) for hit in ranking), default=2)
    table.add_column("#", justify="right", width=max(1, len(str(len(ranking)))))
    table.add_column("score", justify="right", width=8)
    table.add_column("relevance", justify="right", width=9)
    table.add_column("id", no_wrap=True, width=max(2, longest_id))
    table.add_column("document", no_wrap=True, overflow="ellipsis", ratio=1)
    for place, hit in enumerate(ranking[:limit] if limit else ranking, start=1):
        title = f"{plain(hit.document.title, 80)}: " if hit.document.title else ""
        table.add_row(
            str(place),
            f"{hit.score:.4f}",
            f"{hit.relevance:.3f}",
            Text(plain(_name(hit), ID_WIDTH)),
            Text(title + plain(hit.document.text, 200)),
        )
    console.print(table)
    if len(ranking) and not any(hit.score > 0 for hit in ranking):
        console.print("No document stands out: none draws more attention than it does without a query.")
