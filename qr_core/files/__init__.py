"""Files: documents from disk and standard input, files written in one step, folders in which long runs keep results.

Whatever a file holds is data: sizes are bounded, links that lead out are refused, broken input is one clear
error.
"""

from typing import TYPE_CHECKING

from qr_core.lazy import exports

if TYPE_CHECKING:
    from qr_core.files.inputs import read_documents, read_folder, read_source, read_text
    from qr_core.files.workfolder import WorkFolder

__all__ = ["WorkFolder", "read_documents", "read_folder", "read_source", "read_text"]

__getattr__, __dir__ = exports(
    __name__,
    {
        "WorkFolder": "qr_core.files.workfolder",
        "read_documents": "qr_core.files.inputs",
        "read_folder": "qr_core.files.inputs",
        "read_source": "qr_core.files.inputs",
        "read_text": "qr_core.files.inputs",
    },
)
