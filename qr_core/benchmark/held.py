"""Held: how many bytes of tensors stay reachable from an object, such as a scorer's caches after a ranking.

A tensor counts by the memory behind it, once, however many views of it there are. Imports nothing of this package, so
that it can measure any checkout of it.
"""

from __future__ import annotations

import gc
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import torch

NOT_FOLLOWED = (type, ModuleType, FunctionType, BuiltinFunctionType, MethodType, torch.nn.Module)
"""From these everything can be reached, or a model's weights."""


def held_bytes(*roots: Any) -> int:
    """Bytes of all tensors that can be reached from `roots`.

    Examples
    --------
    >>> import torch
    >>> rows = torch.zeros(10, dtype=torch.float32)
    >>> held_bytes({"all": rows, "some": rows[:5]})
    40
    """
    seen: set[int] = set()
    storages: dict[int, int] = {}
    waiting = list(roots)
    while waiting:
        item = waiting.pop()
        if id(item) in seen or isinstance(item, NOT_FOLLOWED):
            continue
        seen.add(id(item))
        if isinstance(item, torch.Tensor):
            storage = item.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
        else:
            waiting += gc.get_referents(item)
    return sum(storages.values())
