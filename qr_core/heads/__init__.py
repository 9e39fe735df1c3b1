"""Heads: which attention heads are read, where they were found, and for which model and prompt.

`sets` is the format of a head set, `resolve` finds the one that a caller means, `maps` draws and compares them;
`published/` holds the sets that ship with this package, one JSON file each.
"""

from typing import TYPE_CHECKING

from qr_core.lazy import exports

if TYPE_CHECKING:
    from qr_core.heads.maps import compare
    from qr_core.heads.sets import HeadSet, HeadShape, Provenance, TemplateStrings

__all__ = ["HeadSet", "HeadShape", "Provenance", "TemplateStrings", "compare"]

__getattr__, __dir__ = exports(
    __name__,
    {
        "HeadSet": "qr_core.heads.sets",
        "HeadShape": "qr_core.heads.sets",
        "Provenance": "qr_core.heads.sets",
        "TemplateStrings": "qr_core.heads.sets",
        "compare": "qr_core.heads.maps",
    },
)
