"""Text: cut a text into parts, and put the parts that were kept together again.

Paragraphs, sentences, turns of a chat and passages are spans of the original string. `chunking` and `transcripts` find
them, `borders` says where sentences end, `units` names the ones that pruning can keep, `pieces` says which are encoded
as one document, `counting` counts tokens, and `pruning` keeps the best within a budget. No model is needed here.
"""

from typing import TYPE_CHECKING

from qr_core.lazy import exports

if TYPE_CHECKING:
    from qr_core.text.chunking import TextFormat, Unit, blocks, passages, sentences
    from qr_core.text.counting import CallersCount, Count, counter
    from qr_core.text.pieces import Piece
    from qr_core.text.pruning import Budget, Candidate, Rendering, select
    from qr_core.text.units import UNITS, UnitKind, UnitName

__all__ = [
    "UNITS",
    "Budget",
    "CallersCount",
    "Candidate",
    "Count",
    "Piece",
    "Rendering",
    "TextFormat",
    "Unit",
    "UnitKind",
    "UnitName",
    "blocks",
    "counter",
    "passages",
    "select",
    "sentences",
]

__getattr__, __dir__ = exports(
    __name__,
    {
        "Budget": "qr_core.text.pruning",
        "CallersCount": "qr_core.text.counting",
        "Candidate": "qr_core.text.pruning",
        "Count": "qr_core.text.counting",
        "Piece": "qr_core.text.pieces",
        "Rendering": "qr_core.text.pruning",
        "TextFormat": "qr_core.text.chunking",
        "UNITS": "qr_core.text.units",
        "Unit": "qr_core.text.chunking",
        "UnitKind": "qr_core.text.units",
        "UnitName": "qr_core.text.units",
        "blocks": "qr_core.text.chunking",
        "counter": "qr_core.text.counting",
        "passages": "qr_core.text.chunking",
        "select": "qr_core.text.pruning",
        "sentences": "qr_core.text.chunking",
    },
)
