"""Reads: what was encoded of documents, kept in memory for the next query over them.

One cache serves the whole process unless a scorer has its own. It is bounded in bytes, drops the least recently used
first, lives in memory only, and may be used from any thread. What is kept belongs to an owner (the weights it was
computed with, or the tokenizer) and goes when its owner does. A hit needs an equal key, compared in full: a collision
of hashes is no hit.

Whoever shares a cache can tell by the time an answer takes what others have had encoded. Partitions keep them apart.

Knows nothing of models, prompts or tensors: what is kept is an object and its size.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from qr_core.checks import check_whole_number
from qr_core.model.shared import when_forgotten
from qr_core.partition import PartitionedCache, living_caches

T = TypeVar("T")

SHARED_BYTES = 2**30
"""Bound of the process's cache."""
CALL_BYTES = 2 * 2**30
"""Bound of the caches that live as long as one call, beside the largest thing in them."""


@dataclass
class _Kept:
    value: Any
    size: int
    used: int


@dataclass
class _Shelf:
    """What is kept of one owner, the least recently used first."""

    kept: OrderedDict[Hashable, _Kept] = field(default_factory=OrderedDict)
    bytes: int = 0

    def take(self, key: Hashable) -> None:
        if key in self.kept:
            self.bytes -= self.kept.pop(key).size


class ReadCache(PartitionedCache):
    """A bounded cache, least recently used out first, safe to share between threads.

    Parameters
    ----------
    max_bytes : int
    spare_largest : bool
        Leave the largest thing out of account, as the cache of a single call does, so that one thing of any size can
        be kept. Otherwise what is larger than `max_bytes` is not kept at all, and pushes nothing out.
    behind : ReadCache, optional
        Asked for what is not here, and given everything that is put here.
    """

    def __init__(
        self, max_bytes: int = CALL_BYTES, spare_largest: bool = True, behind: ReadCache | None = None
    ) -> None:
        self.max_bytes = max_bytes
        self.spare_largest = spare_largest
        self.behind = behind
        self.after_fork()
        super().__init__()

    def after_fork(self) -> None:
        """Start empty, with a lock that no other thread holds; also in a forked child, where one may have held it."""
        self._lock = threading.Lock()
        self._clock = 0
        self._shelves: weakref.WeakKeyDictionary[Any, _Shelf] = weakref.WeakKeyDictionary()

    @property
    def bytes(self) -> int:
        """Bytes kept now."""
        return sum(shelf.bytes for shelf in list(self._shelves.values()))

    def __len__(self) -> int:
        return sum(len(shelf.kept) for shelf in list(self._shelves.values()))

    def get(self, owner: object, key: Hashable) -> Any:
        """What was put under `key` for `owner` in the present partition; None when it is not there."""
        found = self._find(owner, self.own(key))
        self.hits += found is not None
        return None if found is None else found.value

    def put(self, owner: object, key: Hashable, value: Any, size: int) -> None:
        """Keep `value`, of `size` bytes, and drop the least recently used beyond the bound.

        Parameters
        ----------
        owner : object
            Can be weakly referenced; compared by identity.
        """
        self._put(owner, self.own(key), value, size)

    def drop(self, owner: object) -> None:
        """Let go of all that is kept of `owner`, in every partition."""
        with self._lock:
            self._shelves.pop(owner, None)

    def clear(self) -> None:
        """Let go of everything."""
        with self._lock:
            self._shelves.clear()

    def _find(self, owner: object, key: Hashable) -> _Kept | None:
        with self._lock:
            shelf = self._shelves.get(owner)
            found = None if shelf is None else shelf.kept.get(key)
            if shelf is not None and found is not None:
                self._clock += 1
                found.used = self._clock
                shelf.kept.move_to_end(key)
        if self.behind is not None:
            behind = self.behind._find(owner, key)  # also when found here: it is used there as well
            if found is None and behind is not None:
                self._put_here(owner, key, behind.value, behind.size)
            found = found or behind
        return found

    def _put(self, owner: object, key: Hashable, value: Any, size: int) -> None:
        self._put_here(owner, key, value, size)
        if self.behind is not None:
            self.behind._put(owner, key, value, size)

    def _put_here(self, owner: object, key: Hashable, value: Any, size: int) -> None:
        if size > self.max_bytes and not self.spare_largest:
            return
        with self._lock:
            self._clock += 1
            shelf = self._shelves.setdefault(owner, _Shelf())
            shelf.take(key)
            shelf.kept[key] = _Kept(value, size, self._clock)
            shelf.bytes += size
            while self.bytes > self.max_bytes + self._spared():
                shelves = [shelf for shelf in list(self._shelves.values()) if shelf.kept]
                oldest = min(shelves, key=lambda shelf: next(iter(shelf.kept.values())).used)
                oldest.take(next(iter(oldest.kept)))

    def _spared(self) -> int:
        if not self.spare_largest:
            return 0
        return max(kept.size for shelf in list(self._shelves.values()) for kept in shelf.kept.values())


SHARED = ReadCache(SHARED_BYTES, spare_largest=False)
"""The process's cache: every scorer's, unless it has its own or none."""


def cache_of(max_bytes: int | None) -> ReadCache | None:
    """The process's cache for None, a cache of one's own for a number of bytes, none for 0.

    Raises
    ------
    InputError
        When `max_bytes` is anything else.
    """
    check_whole_number("cache_bytes", max_bytes, least=0)
    if max_bytes is None:
        return SHARED
    return ReadCache(max_bytes, spare_largest=False) if max_bytes else None


@when_forgotten
def forget(owner: object) -> None:
    """Drop what any cache keeps of `owner`."""
    for cache in _all():
        cache.drop(owner)


def make_room() -> None:
    """Empty every cache: memory is short."""
    for cache in _all():
        cache.clear()


def _all() -> list[ReadCache]:
    return [cache for cache in living_caches() if isinstance(cache, ReadCache)]
