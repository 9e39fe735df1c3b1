"""Reading: what the selected heads look at, for a query over documents that fit one prompt.

`protocol` is what a reader is to all others, `reader` the one that runs a model of transformers: documents become one
prefix, queries run over it, several at a time. How documents stand in a prompt is the business of a layout, `joint` or
`independent`; `make` chooses it.
"""

from typing import TYPE_CHECKING

from qr_core.lazy import exports

if TYPE_CHECKING:
    from qr_core.reading.protocol import Reader, Reading
    from qr_core.reading.reader import AttentionReader

__all__ = ["AttentionReader", "Reader", "Reading"]

__getattr__, __dir__ = exports(
    __name__,
    {
        "AttentionReader": "qr_core.reading.reader",
        "Reader": "qr_core.reading.protocol",
        "Reading": "qr_core.reading.protocol",
    },
)
