"""Each query's nearest passages."""

from __future__ import annotations


def test_neighbours_leave_answers_out(sources):
    for near in sources.packs.near:
        assert any(near)
        for query, places in zip(sources.collection.queries, near, strict=True):
            assert set(places).isdisjoint(query.golds)
            assert all(sources.collection.passages[place].source == query.source for place in places)
