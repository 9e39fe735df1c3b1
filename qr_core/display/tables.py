"""Tables: figures in columns, for a terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from rich.table import Table

from qr_core.display.terminal import plain

MARKUP = "\\|`*_[]<>#!&~$"


def table(*columns: str, left: Collection[str] = (), title: str | None = None) -> Table:
    """An empty table for a terminal, without lines: the first column and those in `left` on the left, others right."""
    made = Table(box=None, pad_edge=False, header_style="bold", title=title, title_justify="left")
    for place, column in enumerate(columns):
        made.add_column(column, justify="right" if place and column not in left else "left", overflow="fold")
    return made


def markdown_cell(value: object) -> str:
    """Text that stays one cell of a Markdown table and is not read as markup."""
    return "".join(f"\\{c}" if c in MARKUP else c for c in plain(str(value)))


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """The lines of a Markdown table."""
    cells = [[markdown_cell(value) for value in row] for row in (columns, *rows)]
    return [f"| {' | '.join(row)} |" for row in (cells[0], ["---"] * len(columns), *cells[1:])]
