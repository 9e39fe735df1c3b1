"""Queue: requests take turns on one thread, clients one after the other. A bounded number waits.

One whose client disconnects loses its place. Knows nothing of what a turn does.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from qr_core.errors import QRHeadError
from qr_core.server.answers import Refusal
from qr_core.server.turns import Turns

T = TypeVar("T")

Check = Callable[..., None]
"""Called now and then during a turn, with anything; raises once the result is no longer waited for."""
WEIGHT = 0.2
"""Of the latest turn in the running mean of how long turns take."""


class Abandoned(Exception):  # noqa: N818 - a signal, not an error
    """Raised inside a turn whose result is no longer waited for."""


class BrokenTurnError(QRHeadError):
    """A turn ended with what is no `Exception`, such as a panic of a library written in Rust."""


class _Job(Generic[T]):
    """One turn. All but `run` is called on the event loop."""

    def __init__(self, client: Hashable, work: Callable[[Check], T]) -> None:
        self.client = client
        self.result: Future[T] = Future()
        self._work: Callable[[Check], T] | None = work
        self.started: float | None = None
        self.finished: float | None = None
        self.abandoned = False

    def run(self) -> None:
        """Take the turn; `result` has the outcome, whatever happens."""
        work = self._work
        if work is None or not self.result.set_running_or_notify_cancel():
            return
        self.started = time.monotonic()
        try:
            value = work(self.check)
        except Exception as error:  # it belongs to whoever waits for the turn
            self._end(error)
        except BaseException as error:
            broken = BrokenTurnError(f"{type(error).__module__}.{type(error).__qualname__}")
            broken.__cause__ = error
            self._end(broken.with_traceback(error.__traceback__))
        else:
            self.finished = time.monotonic()
            self.result.set_result(value)

    def _end(self, error: Exception) -> None:
        self.finished = time.monotonic()
        self.result.set_exception(error)

    def check(self, *_: Any) -> None:
        if self.abandoned:
            raise Abandoned

    def abandon(self) -> None:
        """Give up the place and release the documents now: the thread may be busy for long."""
        self.abandoned = True
        self._work = None


@dataclass(frozen=True)
class Turn(Generic[T]):
    """A turn's result, the seconds it waited, and the seconds it took."""

    value: T
    queued: float
    scored: float


class ScoringQueue:
    """One thread, and the requests that wait for it. Used from one event loop.

    Parameters
    ----------
    length : int
        At most this many wait, besides the one whose turn it is. When they do, a client with fewer of them than another
        takes the place of the other's latest.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self.mean_seconds = 1.0
        self._turns: Turns[_Job[Any]] = Turns()
        self._running: _Job[Any] | None = None
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="qrhead-serve")
        self._closed: asyncio.Event | None = None

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return len(self._turns)

    @property
    def busy(self) -> bool:
        """Whether the thread is in a turn, even one whose result is no longer waited for."""
        return self._running is not None

    def refuse_if_full(self, client: Hashable = None) -> None:
        """Raise a 429 when no more of this client may wait."""
        if not self._turns.has_room(client, self.length):
            raise self._full()

    def _full(self) -> Refusal:
        wait = min(60.0, self.mean_seconds * (self.length + 1))
        return Refusal(429, "overloaded", f"{self.length} requests are waiting already: try again later", wait)

    async def run(self, work: Callable[[Check], T], seconds: float, client: Hashable = None) -> Turn[T]:
        """Wait for a turn and take it.

        Parameters
        ----------
        work : callable
            Runs on the thread; should call its argument now and then.
        seconds : float
            After this long it is given up: at once while it waits, at its next check while it runs.
        client : hashable, optional
            Whose turn it is. Clients take turns one after the other.

        Raises
        ------
        BrokenTurnError
            When the turn raised what is no `Exception`.
        Refusal
            429 when too many wait, 503 when its turn did not come in time or the server stops, 504 when its turn took
            too long.
        """
        self.refuse_if_full(client)
        if self._closed is None:
            self._closed = asyncio.Event()
        if self._closed.is_set():
            raise Refusal(503, "unavailable", "the server is stopping")
        arrived = time.monotonic()
        if (crowded_out := self._turns.make_room(client, self.length)) is not None:
            crowded_out.result.set_exception(self._full())
        job = _Job(client, work)
        result = asyncio.wrap_future(job.result)
        self._turns.add(client, job)
        self._executor.submit(self._take)
        closed = asyncio.ensure_future(self._closed.wait())
        awaited: set[asyncio.Future[Any]] = {result, closed}
        try:
            await asyncio.wait(awaited, timeout=max(0.0, seconds), return_when=asyncio.FIRST_COMPLETED)
            left = not result.done() or result.cancelled() or isinstance(result.exception(), Abandoned)
            if not left:
                value = result.result()
                started, finished = job.started or arrived, job.finished or arrived
                self.mean_seconds += WEIGHT * (finished - started - self.mean_seconds)
                return Turn(value, started - arrived, finished - started)
            if closed.done():
                raise Refusal(503, "unavailable", "the server is stopping: its time to finish is over")
            if job.started is None:
                raise Refusal(503, "overloaded", "its turn did not come in time: try again later", 5)
            raise Refusal(504, "timeout", "not finished in time: send less, or allow more time")
        finally:  # also when the client went away, which cancels this
            self._turns.remove(client, job)
            job.abandon()
            closed.cancel()
            if not result.cancel() and not result.cancelled():
                result.exception()  # or asyncio logs one that came too late, with its message

    def _take(self) -> None:
        """Do the next turn: as many of these are submitted as there are jobs, and some jobs are taken out."""
        job = self._turns.next()
        if job is None:
            return
        self._running = job
        try:
            job.run()
        finally:
            self._running = None

    def close(self) -> None:
        """Give up all that wait and the one whose turn it is; accept no more."""
        while (job := self._turns.next()) is not None:
            job.abandon()
        if (running := self._running) is not None:
            running.abandon()
        if self._closed is None:
            self._closed = asyncio.Event()
        self._closed.set()
        self._executor.shutdown(wait=False, cancel_futures=True)
