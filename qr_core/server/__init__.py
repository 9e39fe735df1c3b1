"""HTTP server: `qrhead serve`, and `create_app` for servers of one's own. Needs the extra `serve`.

Dialects (`qr_core.server.dialects`) turn requests into jobs; the service runs these in turn, within its limits.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from qr_core.errors import missing_extra
from qr_core.lazy import exports

if TYPE_CHECKING:
    from qr_core.server.app import create_app
    from qr_core.server.keys import ApiKeys
    from qr_core.server.settings import Settings

__all__ = ["ApiKeys", "Settings", "create_app"]

_get, __dir__ = exports(
    __name__,
    {
        "ApiKeys": "qr_core.server.keys",
        "Settings": "qr_core.server.settings",
        "create_app": "qr_core.server.app",
    },
)


def __getattr__(name: str) -> Any:
    if name == "create_app":
        try:
            for package in ("fastapi", "prometheus_client", "uvicorn"):
                import_module(package)
        except ImportError as error:
            raise ImportError(missing_extra(error, "serve"), name=error.name) from error
    return _get(name)
