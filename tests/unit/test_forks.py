"""A forked child gets new locks, in an order that lets one module's use another's."""

import gc
import os
import threading

import pytest

from qr_core import forks
from qr_core.forks import Instances, after_fork

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


class Guarded:
    def __init__(self):
        self.lock = threading.Lock()

    def renew(self):
        self.lock = threading.Lock()


@pytest.fixture(autouse=True)
def registered_for_one_test(monkeypatch):
    monkeypatch.setattr(forks, "_instances", [])
    monkeypatch.setattr(forks, "_functions", [])


def in_child(question):
    """Whether `question()` is true in a forked child."""
    child = os.fork()
    if child == 0:  # pragma: no cover - another process
        os._exit(0 if question() else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_locks_that_another_thread_holds_are_free_in_the_child_and_held_in_the_parent():
    every = Instances(Guarded.renew)
    one = Guarded()
    every.add(one)
    held, done = threading.Event(), threading.Event()

    def hold():
        with one.lock, every._lock:
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        assert in_child(lambda: one.lock.acquire(blocking=False) and list(every) == [one])
        assert not one.lock.acquire(blocking=False)
    finally:
        done.set()
        thread.join()


def test_functions_run_after_all_instances_even_those_registered_later():
    order = []
    after_fork(lambda: order.append("function"))
    every = Instances(lambda one: order.append("instance"))
    one = Guarded()
    every.add(one)
    assert in_child(lambda: order == ["instance", "function"])
    assert order == []


def test_the_decorator_leaves_the_function_usable():
    @after_fork
    def called():
        pass

    assert called() is None
    assert called.__name__ == "called"


def test_instances_do_not_keep_them_alive():
    every = Instances(Guarded.renew)
    one = Guarded()
    every.add(one)
    assert list(every) == [one]
    del one
    gc.collect()
    assert list(every) == []
