"""Limits: a request's body is bounded in bytes and time while it arrives, and its client must stay until the answer.

Every byte held for a client, of a body or an answer, is counted until the client has the answer.

Pure ASGI, so that a body is bounded before it is parsed, whether or not its length was announced.
"""

from __future__ import annotations

import asyncio
from email.message import Message as Header

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from qr_core.server.answers import Refusal
from qr_core.server.held import Held
from qr_core.server.queue import ScoringQueue
from qr_core.server.record import Record
from qr_core.server.settings import Settings


class Disconnected(Exception):  # noqa: N818 - a signal, not an error
    """Raised when the client has disconnected: no answer can reach it."""


class Limits:
    """ASGI middleware: receives bodies within limits, and cancels the work of clients that disconnect.

    Parameters
    ----------
    app : ASGI application
    settings : Settings
    queue : ScoringQueue
        While it is full, no body is received.
    """

    def __init__(self, app: ASGIApp, settings: Settings, queue: ScoringQueue) -> None:
        self.app = app
        self.settings = settings
        self.queue = queue
        self.held = Held(settings.max_buffered_bytes, settings.max_client_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its whole body."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        record = Record.of(scope)
        self._check_headers(scope)
        self.queue.refuse_if_full(record.holder)
        try:
            body = await asyncio.wait_for(self._body(record, receive), self.settings.body_timeout)
            record.body_read = True
            await self._attended(scope, body, receive, send)
        except asyncio.TimeoutError as error:
            if record.body_read:
                raise
            seconds = self.settings.body_timeout
            raise Refusal(408, "timeout", f"the request's body did not come within {seconds:g} seconds") from error
        finally:
            self.held.give_back(record.holder, record.held)

    def _check_headers(self, scope: Scope) -> None:
        """Refuse bodies that are not JSON, are compressed, or are announced as too long."""
        headers = dict(scope["headers"])
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise Refusal(415, "validation", "send the body without content-encoding")
        kind = Header()
        kind["content-type"] = headers.get(b"content-type", b"").decode("latin-1")
        if kind.get_content_type() != "application/json":
            raise Refusal(415, "validation", "send JSON, with content-type: application/json")
        announced = headers.get(b"content-length", b"")
        if announced.isdigit() and int(announced[:20]) > self.settings.max_body_bytes:
            raise self._too_large()

    def _too_large(self) -> Refusal:
        return Refusal(413, "too_large", f"the body is larger than {self.settings.max_body_bytes} bytes")

    async def _body(self, record: Record, receive: Receive) -> bytes:
        body = bytearray()  # a list of chunks would hold many times the bytes of tiny ones
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Disconnected
            chunk = message.get("body", b"")
            record.body_bytes += len(chunk)
            if record.body_bytes > self.settings.max_body_bytes:
                raise self._too_large()
            if not self._hold(record, len(chunk)):
                raise Refusal(429, "overloaded", "too many bytes are waiting already: try again later", 5)
            body += chunk
            if not message.get("more_body", False):
                return bytes(body)

    def _hold(self, record: Record, size: int) -> bool:
        if not self.held.take(record.holder, size):
            return False
        record.held += size
        return True

    async def _attended(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """Run the application; cancel it when the client disconnects before the answer is complete."""
        record = Record.of(scope)
        answered = False
        begun: list[Message] = []
        left: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def gone() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        async def replay() -> Message:
            if left:
                return left.pop()
            await asyncio.shield(leaving)
            return {"type": "http.disconnect"}

        async def note(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                begun.append(message)  # held back until it is known that the answer may be sent
                return
            if not self._hold(record, len(message.get("body", b""))):
                raise Refusal(503, "overloaded", "too many answers wait to be taken in: try again later", 5)
            while begun:
                await send(begun.pop())
            answered = not message.get("more_body", False)
            await send({**message, "more_body": True})
            if answered:  # this returns once the client has taken in the answer, which is held until then
                await send({"type": "http.response.body", "body": b"", "more_body": False})

        leaving = asyncio.ensure_future(gone())
        running = asyncio.ensure_future(self.app(scope, replay, note))
        try:
            await asyncio.wait({leaving, running}, return_when=asyncio.FIRST_COMPLETED)
            if not running.done() and not answered:
                running.cancel()
                await asyncio.wait({running})
                if not running.cancelled():
                    running.exception()  # or asyncio logs it, with its message
                raise Disconnected
            await running
        finally:
            leaving.cancel()
            running.cancel()
