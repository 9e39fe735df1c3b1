"""A worker: one thread, in the caller's context, that a forked child replaces."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import sys
import threading

import pytest

from qr_core.parallel import Worker

ASKED = contextvars.ContextVar("asked", default="nothing")


async def test_calls_take_turns_on_one_thread_in_the_callers_context():
    worker = Worker()
    running, most = [0], [0]

    def call(value: int, *, more: int) -> tuple[int, str, str]:
        running[0] += 1
        most[0] = max(most[0], running[0])
        running[0] -= 1
        return value + more, threading.current_thread().name, ASKED.get()

    ASKED.set("this")
    found = await asyncio.gather(*(worker.run(call, value, more=1) for value in range(5)))
    assert [value for value, _, _ in found] == [1, 2, 3, 4, 5]
    assert len({name for _, name, _ in found}) == 1
    assert found[0][1].startswith("qrhead")
    assert {context for _, _, context in found} == {"this"}
    assert most == [1]


async def test_errors_come_back():
    with pytest.raises(ZeroDivisionError):
        await Worker().run(lambda: 1 / 0)


async def test_the_thread_ends_with_its_owner():
    worker = Worker()
    thread = await worker.run(threading.current_thread)
    del worker
    gc.collect()
    await asyncio.to_thread(thread.join, 30)
    assert not thread.is_alive()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.skipif(sys.version_info >= (3, 12), reason="forking with threads warns, and warnings are errors")
def test_a_forked_child_starts_its_own_thread():
    worker = Worker()
    assert asyncio.run(worker.run(int, "3")) == 3
    child = os.fork()
    if child == 0:
        os._exit(0 if asyncio.run(worker.run(int, "4")) == 4 else 1)
    assert os.waitpid(child, 0)[1] == 0
