"""Packs: what one training prompt holds."""

from __future__ import annotations

import random

import torch

from qr_core.training import data


def test_packs_are_well_formed(sources):
    rng = random.Random(3)
    for _ in range(40):
        pack = sources.packs.draw(rng)
        shape = (len(pack.queries), len(pack.passages))
        assert shape[0] >= 1
        assert 3 <= shape[1] <= 36
        assert len({passage.text for passage in pack.passages}) == shape[1]
        assert pack.lexical.shape == pack.golds.shape == shape
        assert pack.lexical.dtype == torch.float32
        assert pack.golds.any(dim=1)[pack.label_weights > 0].all()


def test_held_out_text_is_not_trained_on(sources):
    rng = random.Random(4)
    held = {p.text for p in sources.collection.passages if data.held_out(p)}
    asked = {q.text for q in sources.collection.queries if q.asked and data.held_out(q)}
    assert held
    assert asked
    for _ in range(40):
        pack = sources.packs.draw(rng)
        assert held.isdisjoint(passage.text for passage in pack.passages)
        assert asked.isdisjoint(pack.queries)
    assert not asked.isdisjoint(query for _ in range(10) for query in sources.held_out.draw(rng).queries)
