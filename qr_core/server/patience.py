"""Patience: closes connections on which nothing moves: no request arrives, or the client does not receive its answer.

uvicorn itself would wait for ever for both.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle


class PatientProtocol(H11Protocol):
    """uvicorn's HTTP/1.1, which checks every `seconds` whether anything has moved on the connection."""

    seconds = 30.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to check."""
        super().connection_made(transport)
        self._seen: tuple[RequestResponseCycle | None, int] = (None, 0)
        self._look_again()

    def _look_again(self) -> None:
        self.loop.call_later(self.seconds, self._look)

    def _look(self) -> None:
        if self.transport is None or self not in self.connections:
            return
        unsent = self.transport.get_write_buffer_size()
        before, unsent_before = self._seen
        idle = self.cycle is None or self.cycle.response_complete
        takes_nothing_in = unsent >= unsent_before > 0
        asks_nothing = idle and not unsent and self.cycle is before
        if takes_nothing_in or asks_nothing:
            self.transport.abort()
        else:
            self._seen = (self.cycle, unsent)
            self._look_again()


def patient(seconds: float) -> type[PatientProtocol]:
    """The protocol with this patience, as uvicorn takes it."""
    return type("PatientProtocol", (PatientProtocol,), {"seconds": seconds})
