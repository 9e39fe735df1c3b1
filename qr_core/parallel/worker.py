"""Worker: one thread of its owner's, for awaiting calls that must take turns anyway.

Waiters must not fill the event loop's own executor, which the rest of a program shares.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from qr_core.forks import Instances

T = TypeVar("T")


class Worker:
    """A thread that starts at the first call, ends with its owner, and is replaced in a forked child."""

    def __init__(self) -> None:
        self._forked()
        _workers.add(self)

    def _forked(self) -> None:
        """The parent's thread does not exist in a forked child: the first call there starts its own."""
        self._executor: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()

    async def run(self, function: Callable[..., T], *args: Any, **options: Any) -> T:
        """Run `function` on the thread, in the caller's context variables."""
        call = partial(contextvars.copy_context().run, function, *args, **options)
        return await asyncio.get_running_loop().run_in_executor(self._own_executor(), call)

    def _own_executor(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="qrhead")
                weakref.finalize(self, self._executor.shutdown, wait=False)
            return self._executor


_workers = Instances(Worker._forked)
