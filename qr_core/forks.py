"""Forks: make a forked child independent of threads that only its parent has.

A lock that such a thread held is never given back in the child, and what it guarded may be half changed. So whoever
has locks registers here how they are renewed. Where the system cannot fork, nothing happens.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

_instances: list[Callable[[], None]] = []
_functions: list[Callable[[], None]] = []


def after_fork(function: Callable[[], None]) -> Callable[[], None]:
    """Decorator: call `function` in every forked child, once all `Instances` there are renewed."""
    _functions.append(function)
    return function


class Instances(Generic[T]):
    """The living instances of a class, weakly held; may be used from any thread.

    Parameters
    ----------
    renew : callable
        Called in a forked child with each instance that lives there.
    """

    def __init__(self, renew: Callable[[T], None]) -> None:
        self._renew = renew
        self._lock = threading.Lock()
        self._alive: weakref.WeakSet[T] = weakref.WeakSet()
        _instances.append(self._renew_all)

    def add(self, instance: T) -> None:
        """Count it among them for as long as it lives."""
        with self._lock:
            self._alive.add(instance)

    def __iter__(self) -> Iterator[T]:
        with self._lock:  # a set that another thread adds to cannot be iterated over
            alive = list(self._alive)
        return iter(alive)

    def _renew_all(self) -> None:
        self._lock = threading.Lock()
        for instance in self:
            self._renew(instance)


def _in_child() -> None:
    for call in (*_instances, *_functions):
        call()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
