"""Partition: whose things are kept and found, where several clients share caches; and the base of every such cache.

Whatever keeps something that a caller handed in, from one call to the next, is a `PartitionedCache`: under a key it
finds only what was kept in the same partition, and it is known here, so that a test can look at all of them.

Knows nothing of what is kept: a partition is a name, valid for a thread and task.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar, copy_context
from typing import Any, Generic, TypeVar, cast

from cachetools import LRUCache

from qr_core.forks import Instances

T = TypeVar("T")

_partition: ContextVar[Hashable] = ContextVar("qrhead_cache_partition", default=None)


@contextmanager
def cache_partition(name: Hashable) -> Iterator[None]:
    """Let what is encoded in this block neither find nor leave anything in another partition of any cache.

    For servers: one partition per client, so that no client learns by timing what another has sent. The byte bound is
    shared by all partitions. The block holds for its thread and task, and for what `arank` and `aprune` start in it.

    Parameters
    ----------
    name : hashable
        Equal names share a partition. None is the one outside of any block.

    Examples
    --------
    >>> from qr_core import QRScorer, cache_partition
    >>> with cache_partition("client-a"):
    ...     best = QRScorer.from_pretrained().rank("When does the ferry leave?", ["The ferry leaves at noon."])[0]
    """
    token = _partition.set(name)
    try:
        yield
    finally:
        _partition.reset(token)


def current_partition() -> Hashable:
    """The partition of the running block; None outside of any."""
    return _partition.get()


def in_this_context(values: Iterator[T]) -> Iterator[T]:
    """`values`, each made in the context, and so in the cache partition, in which this is called."""
    context = copy_context()
    ended = object()

    def each() -> Iterator[T]:
        while (value := context.run(next, values, ended)) is not ended:
            yield cast(T, value)

    return each()


class PartitionedCache:
    """Base of every cache of what callers hand in.

    Attributes
    ----------
    hits : int
        How many things were found.
    """

    def __init__(self) -> None:
        self.hits = 0
        _living.add(self)

    def own(self, key: Hashable) -> Hashable:
        """`key` as it is known in the running partition."""
        return (current_partition(), key)

    def after_fork(self) -> None:
        """In a forked child: what another thread was changing may be half changed, and its lock is never given back."""
        raise NotImplementedError


def living_caches() -> list[PartitionedCache]:
    """All of the process."""
    return list(_living)


_living: Instances[PartitionedCache] = Instances(lambda cache: cache.after_fork())


class Remembered(PartitionedCache, Generic[T]):
    """What was made of some key, bounded in bytes, the least recently used dropped first; for use by any thread.

    A copy, pickled or not, starts empty.

    Parameters
    ----------
    max_bytes : int
    size : callable
        Bytes that a key and what was made of it take.
    """

    def __init__(self, max_bytes: int, size: Callable[[Hashable, T], int]) -> None:
        super().__init__()
        self.max_bytes = max_bytes
        self._size = size
        self.after_fork()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """What was made of `key`, or is now."""
        own = self.own(key)
        with self._lock:
            found = self._kept.get(own)
            self.hits += found is not None
        if found is None:
            made = make()
            found = (made, self._size(key, made))
            with self._lock, suppress(ValueError):  # too large for the bound
                self._kept[own] = found
        return found[0]

    @property
    def bytes(self) -> int:
        """Bytes kept now."""
        return int(self._kept.currsize)

    def after_fork(self) -> None:
        """Start empty, with a lock that no other thread holds."""
        self._lock = threading.Lock()
        self._kept: LRUCache[Hashable, tuple[T, int]] = LRUCache(self.max_bytes, getsizeof=lambda kept: kept[1])

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.max_bytes, self._size)
