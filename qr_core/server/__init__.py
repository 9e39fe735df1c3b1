"""HTTP server: `qrhead serve`, and `create_app` for servers of one's own. Needs the extra `serve`."""

from qr_core.errors import missing_extra

try:
    import fastapi
    import prometheus_client
    import uvicorn
except ImportError as error:
    raise ImportError(missing_extra(error, "serve"), name=error.name) from error

from qr_core.server.app import create_app
from qr_core.server.auth import ApiKeys
from qr_core.server.settings import Settings

__all__ = ["ApiKeys", "Settings", "create_app"]

del fastapi, prometheus_client, uvicorn
