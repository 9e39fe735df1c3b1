"""Cache: what was encoded, kept for the next query over the same documents.

`reads` keeps whole prompts in memory, `documents` single documents for the layouts that encode each on its own (in a
`store`), `folder` those on disk. All are bounded in bytes, and hold to partitions (`qr_core.partition`).
"""

from typing import TYPE_CHECKING

from qr_core.lazy import exports

if TYPE_CHECKING:
    from qr_core.cache.documents import SHARED_DOCUMENTS, DocumentCache
    from qr_core.cache.folder import DocumentFolder
    from qr_core.cache.reads import SHARED, ReadCache
    from qr_core.partition import cache_partition

__all__ = ["SHARED", "SHARED_DOCUMENTS", "DocumentCache", "DocumentFolder", "ReadCache", "cache_partition"]

__getattr__, __dir__ = exports(
    __name__,
    {
        "DocumentCache": "qr_core.cache.documents",
        "DocumentFolder": "qr_core.cache.folder",
        "ReadCache": "qr_core.cache.reads",
        "SHARED": "qr_core.cache.reads",
        "SHARED_DOCUMENTS": "qr_core.cache.documents",
        "cache_partition": "qr_core.partition",
    },
)
