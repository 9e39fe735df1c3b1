"""Where `rank_file` was before it moved to `qr_core.bulk`; this name works until 1.0."""

from qr_core.bulk.run import Summary, rank_file

__all__ = ["Summary", "rank_file"]
