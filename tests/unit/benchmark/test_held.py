"""Held: bytes of tensors, each memory once."""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import torch

from qr_core.benchmark.held import held_bytes
from qr_core.benchmark.task import task_of


@dataclass(frozen=True)
class Entry:
    keys: tuple[torch.Tensor, ...]


def test_memory_counts_once_and_weights_do_not():
    rows = torch.zeros(8, 4, dtype=torch.bfloat16)
    layer = torch.nn.Linear(4, 4)
    cache: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
    cache[layer] = {"a": Entry((rows[:2], rows[2:])), "b": Entry((torch.ones(3, dtype=torch.float32),))}
    assert held_bytes(cache) == held_bytes(cache, cache) == 8 * 4 * 2 + 3 * 4
    assert held_bytes(None, [layer, torch, len, lambda: rows]) == 0


def test_what_a_ranking_leaves_grows_with_the_documents(loaded):
    held = {}
    for layout in ("joint", "independent"):
        for count in (10, 20):
            scorer, task = loaded.scorer(layout), task_of(count)
            scorer.rank(task.queries[0], task.documents)
            held[layout, count] = held_bytes(scorer.cache, scorer.document_cache)
        assert 1.6 < held[layout, 20] / held[layout, 10] < 2.4
