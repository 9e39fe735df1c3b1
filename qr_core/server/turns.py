"""Turns: whose turn is next. Clients take turns one after the other, each with its requests in order of arrival.

Knows nothing of threads or of what a turn does, and names no client.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Turns(Generic[T]):
    """What waits, by client. May be used from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[Hashable, deque[T]] = {}  # whoever has had a turn goes to the end

    def __len__(self) -> int:
        with self._lock:
            return sum(map(len, self._waiting.values()))

    def add(self, client: Hashable, one: T) -> None:
        """Let `one` wait behind the others of its client."""
        with self._lock:
            self._waiting.setdefault(client, deque()).append(one)

    def next(self) -> T | None:
        """The first that waits, of the client whose turn it is; None when nothing waits."""
        with self._lock:
            if not self._waiting:
                return None
            client = next(iter(self._waiting))
            waiting = self._waiting.pop(client)
            one = waiting.popleft()
            if waiting:
                self._waiting[client] = waiting
            return one

    def remove(self, client: Hashable, one: T) -> bool:
        """Take `one` out; whether it still waited."""
        with self._lock:
            waiting = self._waiting.get(client, ())
            if one not in waiting:
                return False
            self._waiting[client].remove(one)
            if not self._waiting[client]:
                del self._waiting[client]
            return True

    def has_room(self, client: Hashable, length: int) -> bool:
        """Whether one more of this client may wait where `length` may: the place may be another's, see `make_room`."""
        with self._lock:
            return sum(map(len, self._waiting.values())) < length or self._crowding(client) is not None

    def make_room(self, client: Hashable, length: int) -> T | None:
        """Take out the latest of the client with the most that wait, if `length` wait already; give what was taken."""
        with self._lock:
            crowding = self._crowding(client)
            if crowding is None or sum(map(len, self._waiting.values())) < length:
                return None
            return self._waiting[crowding].pop()  # at least one is left

    def _crowding(self, client: Hashable) -> Hashable | None:
        """The client with the most that wait, if they are at least two more than those of `client`."""
        most = max(self._waiting, key=lambda one: len(self._waiting[one]), default=None)
        own = len(self._waiting.get(client, ()))
        return most if most is not None and len(self._waiting[most]) > own + 1 else None
