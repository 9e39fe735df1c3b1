"""Tables: figures in columns, for a terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.table import Table

from qr_core.display.terminal import plain

MARKUP = "\\|`*_[]<>#!&~$"


def table(*columns: str, title: str | None = None) -> Table:
    """An empty table for a terminal, without lines: the first column is on the left, all others on the right."""
    made = Table(box=None, pad_edge=False, header_style="bold", title=title, title_justify="left")
    for place, column in enumerate(columns):
        made.add_column(column, justify="right" if place else "left", overflow="fold")
    return made


def markdown_cell(value: object) -> str:
    """Text that stays one cell of a Markdown table and is not read as markup."""
    return "".join(f"\\{c}" if c in MARKUP else c for c in plain(str(value)))


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """The lines of a Markdown table, aligned as `table` is."""
    cells = [[markdown_cell(value) for value in row] for row in (columns, *rows)]
    rule = ["---", *("---:" for _ in columns[1:])]
    return [f"| {' | '.join(row)} |" for row in (cells[0], rule, *cells[1:])]
