"""Display: rankings and untrusted text as people read them, in a terminal and in notebooks.

Everything that came from documents or files is stripped of control characters, and escaped where it becomes HTML.
"""

from typing import TYPE_CHECKING

from qr_core.lazy import exports

if TYPE_CHECKING:
    from qr_core.display.notebook import pruned_html, ranking_html
    from qr_core.display.terminal import plain, safe_lines, show_ranking

__all__ = ["plain", "pruned_html", "ranking_html", "safe_lines", "show_ranking"]

__getattr__, __dir__ = exports(
    __name__,
    {
        "plain": "qr_core.display.terminal",
        "pruned_html": "qr_core.display.notebook",
        "ranking_html": "qr_core.display.notebook",
        "safe_lines": "qr_core.display.terminal",
        "show_ranking": "qr_core.display.terminal",
    },
)
