"""Partition: whose things are kept and found, where several clients share caches.

Knows nothing of any cache: a partition is a name, valid for a thread and task.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import TypeVar, cast

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
