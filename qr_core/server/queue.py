"""Queue: requests take turns on one thread. A bounded number waits; one whose client disconnects loses its place.

Knows nothing of what a turn does.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from qr_core.server.answers import Refusal

T = TypeVar("T")

Check = Callable[..., None]
"""Called now and then during a turn, with anything; raises once the result is no longer waited for."""
WEIGHT = 0.2
"""Of the latest turn in the running mean of how long turns take."""


class Abandoned(Exception):  # noqa: N818 - a signal, not an error
    """Raised inside a turn whose result is no longer waited for."""


class _Job(Generic[T]):
    """One turn. All but `run` is called on the event loop."""

    def __init__(self, work: Callable[[Check], T]) -> None:
        self._work: Callable[[Check], T] | None = work
        self.started: float | None = None
        self.finished: float | None = None
        self.abandoned = False

    @property
    def waiting(self) -> bool:
        return self.started is None and not self.abandoned

    def run(self) -> T:
        work = self._work
        if self.abandoned or work is None:
            raise Abandoned
        self.started = time.monotonic()
        try:
            return work(self.check)
        finally:
            self.finished = time.monotonic()

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
        At most this many wait, besides the one whose turn it is.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self.mean_seconds = 1.0
        self._jobs: set[_Job[Any]] = set()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="qrhead-serve")
        self._closed: asyncio.Event | None = None

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return sum(job.waiting for job in self._jobs)

    @property
    def busy(self) -> bool:
        """Whether the thread is in a turn, even one whose result is no longer waited for."""
        return any(job.started is not None and job.finished is None for job in self._jobs)

    def refuse_if_full(self) -> None:
        """Raise a 429 when no more may wait."""
        if self.waiting >= self.length:
            wait = min(60.0, self.mean_seconds * (self.length + 1))
            raise Refusal(429, "overloaded", f"{self.length} requests are waiting already: try again later", wait)

    async def run(self, work: Callable[[Check], T], seconds: float) -> Turn[T]:
        """Wait for a turn and take it.

        Parameters
        ----------
        work : callable
            Runs on the thread; should call its argument now and then.
        seconds : float
            After this long it is given up: at once while it waits, at its next check while it runs.

        Raises
        ------
        Refusal
            429 when too many wait, 503 when its turn did not come in time or the server stops, 504 when its turn took
            too long.
        """
        self.refuse_if_full()
        if self._closed is None:
            self._closed = asyncio.Event()
        if self._closed.is_set():
            raise Refusal(503, "unavailable", "the server is stopping")
        arrived = time.monotonic()
        job = _Job(work)
        result = asyncio.wrap_future(self._submit(job))
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
            job.abandon()
            closed.cancel()
            if not result.cancel() and not result.cancelled():
                result.exception()  # or asyncio logs one that came too late, with its message

    def _submit(self, job: _Job[T]) -> Future[T]:
        loop = asyncio.get_running_loop()

        def leave(_: Future[T]) -> None:
            with suppress(RuntimeError):  # the loop is over
                loop.call_soon_threadsafe(self._jobs.discard, job)

        running = self._executor.submit(job.run)
        self._jobs.add(job)
        running.add_done_callback(leave)
        return running

    def close(self) -> None:
        """Give up all that wait and the one whose turn it is; accept no more."""
        for job in self._jobs:
            job.abandon()
        if self._closed is None:
            self._closed = asyncio.Event()
        self._closed.set()
        self._executor.shutdown(wait=False, cancel_futures=True)
