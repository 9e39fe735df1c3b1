"""Reading: what the selected heads look at, for a query over documents that fit one prompt.

One prefix of documents, one pass for every query over it: attention mass per head and token. Whether documents share a
prompt or are encoded independently is the layout's business.
"""

from typing import TYPE_CHECKING

from qr_core.lazy import exports

if TYPE_CHECKING:
    from qr_core.reading.reader import Reader, TokenMasses

__all__ = ["Reader", "TokenMasses"]

__getattr__, __dir__ = exports(__name__, {"Reader": "qr_core.reading.reader", "TokenMasses": "qr_core.reading.reader"})
