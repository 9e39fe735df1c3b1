"""Where `DocumentCache` was before it moved to `qr_core.cache`; this name works until 1.0."""

from qr_core.cache.documents import DocumentCache

__all__ = ["DocumentCache"]
