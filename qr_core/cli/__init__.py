"""Command line: `qrhead rank | prune | ask | explain | serve | rank-many | detect | heads | cache | eval | bench`.

One module a command, `common` for what several share, `main` for the whole. Options become one call; nothing else
happens here.
"""

from typing import TYPE_CHECKING

from qr_core.lazy import exports

if TYPE_CHECKING:
    from qr_core.cli.main import app, main

__all__ = ["app", "main"]

__getattr__, __dir__ = exports(__name__, {"app": "qr_core.cli.main", "main": "qr_core.cli.main"})
