"""Auth: the gate that lets only holders of an API key in. Knows nothing of what is behind it."""

from __future__ import annotations

from fastapi.security import HTTPBearer
from starlette.types import ASGIApp, Receive, Scope, Send

from qr_core.server.answers import Refusal
from qr_core.server.keys import ApiKeys
from qr_core.server.record import Record, path_of

bearer = HTTPBearer(auto_error=False, description="An API key, where the server has any.")
"""Tells readers of the OpenAPI schema that a key is asked for; it is `Gate` that asks."""
OPEN_PATHS = frozenset({"/health", "/ready", "/openapi.json"})
"""Served without a key: what an orchestrator asks, and what the source tells anyone."""


class Gate:
    """ASGI middleware that refuses requests without a known key with 401, before their body is read."""

    def __init__(self, app: ASGIApp, keys: ApiKeys) -> None:
        self.app = app
        self.keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Note the client in the request's record, and go on."""
        if scope["type"] == "http" and len(self.keys) and path_of(scope) not in OPEN_PATHS:
            offered = [value for name, value in scope["headers"] if name == b"authorization"]
            client = self.keys.client(offered[0]) if len(offered) == 1 else None
            if client is None:
                raise Refusal(401, "unauthorized", "the API key is missing or not known")
            Record.of(scope).client = client
        await self.app(scope, receive, send)
