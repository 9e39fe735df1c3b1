"""Cache: what was encoded, kept for the next query over the same documents.

`reads` keeps whole prompts in memory, `documents` single documents for the independent layout, `folder` those on disk.
All are bounded in bytes. `cache_partition` keeps the clients of a server apart.
"""

from typing import TYPE_CHECKING

from qr_core.lazy import exports

if TYPE_CHECKING:
    from qr_core.cache.documents import DocumentCache
    from qr_core.cache.folder import DocumentFolder
    from qr_core.cache.reads import SHARED, ReadCache, cache_partition

__all__ = ["SHARED", "DocumentCache", "DocumentFolder", "ReadCache", "cache_partition"]

__getattr__, __dir__ = exports(
    __name__,
    {
        "DocumentCache": "qr_core.cache.documents",
        "DocumentFolder": "qr_core.cache.folder",
        "ReadCache": "qr_core.cache.reads",
        "SHARED": "qr_core.cache.reads",
        "cache_partition": "qr_core.cache.reads",
    },
)
