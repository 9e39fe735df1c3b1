"""Observe: the outermost layer. Every request gets one answer, one log line and its place in the metrics.

Whatever goes wrong inside becomes an answer here, and is logged without any text of the request.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from qr_core.server.answers import ErrorBody, ErrorShape, Refusal, refusal_of
from qr_core.server.limits import Disconnected
from qr_core.server.logs import log_failure, log_request
from qr_core.server.record import Record
from qr_core.server.service import Service

LINGER_SECONDS = 2.0
LINGER_BYTES = 64 * 2**20
ALWAYS_SERVED = frozenset({"/health", "/ready", "/metrics"})
"""Answered while the server stops as well."""


class Observe:
    """ASGI middleware around all others.

    Parameters
    ----------
    app : ASGI application
    service : Service
    endpoints : mapping of str to type
        For the path of every endpoint, how its errors are written.
    """

    def __init__(self, app: ASGIApp, service: Service, endpoints: Mapping[str, type[ErrorShape]]) -> None:
        self.app = app
        self.service = service
        self.endpoints = endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, whatever happens."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        record = Record.begin(scope, self.endpoints, ErrorBody)
        answering = False

        async def note(message: Message) -> None:
            nonlocal answering
            if message["type"] == "http.response.start":
                answering = True
                record.status = message["status"]
                message["headers"] = [*message.get("headers", []), (b"x-request-id", record.id.encode())]
            await send(message)

        self.service.in_flight += 1
        try:
            if self.service.draining and record.endpoint not in ALWAYS_SERVED:
                raise Refusal(503, "unavailable", "the server is stopping: ask another one", 5)
            await self.app(scope, receive, note)
        except Disconnected:
            record.status = 499
        except (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            refusal = refusal_of(error, record.id)
            if refusal.status >= 500 and refusal is not error:
                log_failure(record, error)
            if answering:  # too late for another answer: the connection is closed
                record.status = 500
                return
            await self._refuse(refusal, record, scope, receive, note)
        finally:
            self.service.in_flight -= 1
            seconds = time.monotonic() - record.arrived
            self.service.metrics.observe(record, seconds)
            log_request(record, seconds)

    async def _refuse(
        self, refusal: Refusal, record: Record, scope: MutableMapping[str, Any], receive: Receive, send: Send
    ) -> None:
        """Answer; if the body is still arriving, go on receiving it for a moment.

        A connection that is closed before its bytes are read is reset, and the client would see no answer.
        """
        linger = scope["method"] == "POST" and not record.body_read
        response = refusal.response(record, {"connection": "close"} if linger else None)
        start = {"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers}
        await send(start)
        await send({"type": "http.response.body", "body": bytes(response.body), "more_body": linger})
        if linger:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(_discard(receive), LINGER_SECONDS)
            await send({"type": "http.response.body", "body": b""})


async def _discard(receive: Receive) -> None:
    taken = 0
    while taken < LINGER_BYTES:
        message = await receive()
        taken += len(message.get("body", b""))
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return
