"""Heads: which attention heads score documents, where they were found, and for which model and prompt.

`sets` is the format of a head set, of `parts`; `resolve` finds the one that a caller means, `pairs` reads and writes
heads as text; `maps` draws sets and `comparison` compares two. `published/` holds the sets that ship with this package,
one JSON file each.
"""

from typing import TYPE_CHECKING

from qr_core.lazy import exports

if TYPE_CHECKING:
    from qr_core.heads.comparison import compare
    from qr_core.heads.pairs import Pair, format_pairs
    from qr_core.heads.parts import HeadShape, Provenance, TemplateStrings
    from qr_core.heads.sets import HeadSet

__all__ = ["HeadSet", "HeadShape", "Pair", "Provenance", "TemplateStrings", "compare", "format_pairs"]

__getattr__, __dir__ = exports(
    __name__,
    {
        "HeadSet": "qr_core.heads.sets",
        "HeadShape": "qr_core.heads.parts",
        "Pair": "qr_core.heads.pairs",
        "Provenance": "qr_core.heads.parts",
        "TemplateStrings": "qr_core.heads.parts",
        "compare": "qr_core.heads.comparison",
        "format_pairs": "qr_core.heads.pairs",
    },
)
