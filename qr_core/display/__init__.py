"""Display: how rankings, figures and untrusted text are shown, in a terminal, in notebooks and in reports.

Everything that came from documents or files is stripped of control characters, and escaped where it becomes HTML or
Markdown. It only formats what it is handed, so that every other room may use it.
"""

from typing import TYPE_CHECKING

from qr_core.lazy import exports

if TYPE_CHECKING:
    from qr_core.display.figures import figure, png
    from qr_core.display.notebook import pruned_html, ranking_html
    from qr_core.display.tables import markdown_cell, markdown_table, table
    from qr_core.display.terminal import plain, safe_lines, show_ranking
    from qr_core.display.wording import titled, with_interval, with_spread

__all__ = [
    "figure",
    "markdown_cell",
    "markdown_table",
    "plain",
    "png",
    "pruned_html",
    "ranking_html",
    "safe_lines",
    "show_ranking",
    "table",
    "titled",
    "with_interval",
    "with_spread",
]

__getattr__, __dir__ = exports(
    __name__,
    {
        "figure": "qr_core.display.figures",
        "markdown_cell": "qr_core.display.tables",
        "markdown_table": "qr_core.display.tables",
        "plain": "qr_core.display.terminal",
        "png": "qr_core.display.figures",
        "pruned_html": "qr_core.display.notebook",
        "ranking_html": "qr_core.display.notebook",
        "safe_lines": "qr_core.display.terminal",
        "show_ranking": "qr_core.display.terminal",
        "table": "qr_core.display.tables",
        "titled": "qr_core.display.wording",
        "with_interval": "qr_core.display.wording",
        "with_spread": "qr_core.display.wording",
    },
)
