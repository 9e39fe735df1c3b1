"""Patience: what the server does with connections, before any application: for how long, how many, and whose.

uvicorn itself would wait for ever for clients that send nothing or take in their answer in drips, and would give all
connections to one client. Knows nothing of what is asked.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

import h11
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from qr_core.server.answers import ErrorBody, Refusal
from qr_core.server.record import Record

SPARE = 64
"""Connections above the limit that are told so; more are closed without a word."""
KERNEL_BYTES = 2**18
"""Of an answer that the kernel may hold for a client; what it holds is not seen here."""
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class PatientProtocol(H11Protocol):
    """uvicorn's HTTP/1.1, within bounds.

    A connection is closed on which no request arrives for `seconds`, up to twice that, and one whose client has not
    taken in within `seconds` what is sent to it. Of at most `most` connections, addresses have shares: when all are
    taken, one with fewer gets the place of one with more.
    """

    seconds = 30.0
    most = 1024

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to check, and find a place."""
        super().connection_made(transport)
        # So that `pause_writing` and `resume_writing` tell of every byte, and an answer's `send` returns once it left.
        transport.set_write_buffer_limits(0)
        self._sending: asyncio.TimerHandle | None = None
        self._cycle_seen: object = None
        self.began = time.monotonic()
        if len(self.connections) > self.most and not self._take_place():
            self.app = _too_many
            if len(self.connections) > self.most + SPARE:
                self._close()
                return
        self.loop.call_later(self.seconds, self._look)

    @property
    def idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def address(self) -> str:
        """Whose connection it is."""
        return self.client[0] if self.client else ""

    def _take_place(self) -> bool:
        """Close a connection of the address with the most, if that has more than this one's; whether it was so."""
        shares: defaultdict[str, list[Any]] = defaultdict(list)
        for one in self.connections:
            shares[getattr(one, "address", "")].append(one)
        most = max(shares.values(), key=len)
        if len(most) <= len(shares[self.address]):
            return False
        max(most, key=lambda one: (one.idle, one.began))._close()
        return True

    def _close(self) -> None:
        self.connections.discard(self)  # its place is free now, not when the loop comes to it
        self.transport.abort()

    def pause_writing(self) -> None:
        """Bytes wait for the client: they may wait for some time, however many of them it takes in meanwhile."""
        super().pause_writing()
        if self._sending is None:
            self._sending = self.loop.call_later(self.seconds, self._close)

    def resume_writing(self) -> None:
        """All bytes are on their way."""
        super().resume_writing()
        self._stop_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._stop_timer()
        super().connection_lost(exc)

    def _stop_timer(self) -> None:
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None

    def _look(self) -> None:
        if self not in self.connections:
            return
        if self.idle and self._sending is None and self.cycle is self._cycle_seen:
            self._close()
            return
        self._cycle_seen = self.cycle
        self.loop.call_later(self.seconds, self._look)

    def send_400_response(self, msg: str) -> None:
        """Say in JSON, as for every other refusal, that this is not HTTP; then close."""
        if self.cycle is not None and not self.cycle.response_complete:  # another request's answer stands in the way
            self._close()
            return
        head, body = _written(Refusal(400, "validation", msg))
        self.transport.write(self.conn.send(h11.Response(status_code=400, headers=head, reason=b"Bad Request")) or b"")
        self.transport.write(self.conn.send(h11.Data(data=body)) or b"")
        self.transport.write(self.conn.send(h11.EndOfMessage()) or b"")
        self.transport.close()


def patient(seconds: float, most: int) -> type[PatientProtocol]:
    """The protocol with this patience and room for this many, as uvicorn takes it."""
    return type("PatientProtocol", (PatientProtocol,), {"seconds": seconds, "most": most})


async def _too_many(_: Scope, __: Receive, send: Send) -> None:
    head, body = _written(Refusal(503, "overloaded", "there are too many connections: try again later", 5))
    await send({"type": "http.response.start", "status": 503, "headers": head})
    await send({"type": "http.response.body", "body": body})


def _written(refusal: Refusal) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Headers and body of an answer that no application gives."""
    record = Record("other", "other", ErrorBody)
    response = refusal.response(record, {"connection": "close", "x-request-id": record.id})
    return response.raw_headers, bytes(response.body)
