"""Text: cut a text into parts, and put the parts that were kept together again.

Paragraphs, sentences, turns of a chat and passages are spans of the original string. `chunking` and `transcripts` find
them, `pieces` says which are encoded at once, `pruning` keeps the best within a budget. No model is needed here.
"""

from typing import TYPE_CHECKING

from qr_core.lazy import exports

if TYPE_CHECKING:
    from qr_core.text.chunking import TextFormat, UnitName, passages, units
    from qr_core.text.pieces import Piece
    from qr_core.text.pruning import Budget, Candidate, Rendering, select

__all__ = ["Budget", "Candidate", "Piece", "Rendering", "TextFormat", "UnitName", "passages", "select", "units"]

__getattr__, __dir__ = exports(
    __name__,
    {
        "Budget": "qr_core.text.pruning",
        "Candidate": "qr_core.text.pruning",
        "Piece": "qr_core.text.pieces",
        "Rendering": "qr_core.text.pruning",
        "TextFormat": "qr_core.text.chunking",
        "UnitName": "qr_core.text.chunking",
        "passages": "qr_core.text.chunking",
        "select": "qr_core.text.pruning",
        "units": "qr_core.text.chunking",
    },
)
