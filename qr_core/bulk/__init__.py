"""Bulk ranking: a file of jobs, each a query with its documents, ranked into a folder of parts that can be resumed.

`run` cuts the work and hands it out, in this process or on Ray; `ranker` does one part; `files` and `formats` read and
write.
"""

from typing import TYPE_CHECKING

from qr_core.lazy import exports

if TYPE_CHECKING:
    from qr_core.bulk.ranker import Ranker
    from qr_core.bulk.run import Summary, rank_file

__all__ = ["Ranker", "Summary", "rank_file"]

__getattr__, __dir__ = exports(
    __name__, {"Ranker": "qr_core.bulk.ranker", "Summary": "qr_core.bulk.run", "rank_file": "qr_core.bulk.run"}
)
