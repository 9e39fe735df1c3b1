"""Explain: which words of each document drew the attention, as plain data, a page, or text in a terminal.

`explanation` collects the words (`words`) and their masses, `html` and `terminal` show them; `page/` has the page's
style and script.
"""

from typing import TYPE_CHECKING

from qr_core.lazy import exports

if TYPE_CHECKING:
    from qr_core.explain.explanation import ExplainedDocument, Explanation, explain

__all__ = ["ExplainedDocument", "Explanation", "explain"]

__getattr__, __dir__ = exports(
    __name__,
    {
        "ExplainedDocument": "qr_core.explain.explanation",
        "Explanation": "qr_core.explain.explanation",
        "explain": "qr_core.explain.explanation",
    },
)
