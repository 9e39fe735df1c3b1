"""Self-check of places: whether a query pass depends on where its tokens stand in memory, or on their positions only.

A model is told positions, and can ask the cache how many tokens stand before. Where several suffixes share a pass, or
documents share positions, the two differ. So one pass is run twice, at the same positions, over a cache that says the
second time that very many more tokens stand before: far beyond the place at which anything changes.

Knows nothing of documents, or of what a model does with places.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from transformers import Cache

from qr_core.attention.loaded import facts_of
from qr_core.attention.prefix import Prefix

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FAR = 2**20
"""Tokens. What depends on the place by steps has steps of thousands."""


class _Far:
    """A prefix whose caches say that `by` more tokens stand before it."""

    def __init__(self, prefix: Prefix, by: int) -> None:
        self.prefix, self.by = prefix, by
        self.length, self.depth, self.bytes = prefix.length, prefix.depth, prefix.bytes

    def deepened(self, count: int) -> _Far:
        """See `Prefix.deepened`."""
        return _Far(self.prefix.deepened(count), self.by)

    def view(self, windows: Mapping[int, int] = MappingProxyType({})) -> Cache:
        """See `Prefix.view`."""
        cache = self.prefix.view(windows)
        for layer in cast("list[Any]", cache.layers):
            _move(layer, self.by)
        return cache


def far(model: PreTrainedModel, prefix: Prefix) -> Prefix:
    """`prefix`, seemingly so far on that whatever depends on places shows; windows and chunks begin where they did."""
    step = math.lcm(*facts_of(model).windows.values())
    return cast(Prefix, _Far(prefix, step * -(-FAR // step)))


def _move(layer: Any, by: int) -> None:
    before = layer.get_seq_length
    layer.get_seq_length = lambda: before() + by
    layer.get_mask_sizes = lambda rows: (int(layer.keys.shape[-2]) + rows, getattr(layer, "first", 0) + by)
