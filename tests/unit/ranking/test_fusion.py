"""Fusion: what joining the order that documents came in with the attention on them must and must not do."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qr_core.ranking.fusion import joined

SHARES = st.lists(st.integers(0, 1000).map(lambda share: share / 1000), max_size=40)
WEIGHTS = st.integers(0, 100).map(lambda weight: weight / 100)


def by_attention(relevances: list[float]) -> list[int]:
    return sorted(range(len(relevances)), key=lambda position: -relevances[position])


def test_by_hand():
    """Places are worth 6/11, 3/11 and 2/11."""
    order, relevances = joined([1, 0, 2], [0.2, 0.8, 0.0], 0.5)
    assert order == [1, 0, 2]
    assert relevances == pytest.approx([(0.2 + 6 / 11) / 2, (0.8 + 3 / 11) / 2, 1 / 11])
    assert sum(relevances) == pytest.approx(1)
    assert joined([1, 0, 2], [0.2, 0.8, 0.0], 0.75)[0] == [0, 1, 2]
    assert joined([1, 0, 2], [0.1, 0.4, 0.0], 0.5)[1] == pytest.approx(relevances)  # shares of what there is
    assert joined([], [], 0.5) == ([], [])
    assert joined([0], [0.3], 0.7) == ([0], [1.0])


@given(st.lists(st.floats(0, 1), max_size=40), st.randoms())
def test_without_weight_nothing_changes(relevances, rng):
    order = list(range(len(relevances)))
    rng.shuffle(order)  # whatever it is: scores that are not positive all have the same relevance
    assert joined(order, relevances, 0.0) == (order, relevances)


@given(SHARES)
def test_with_all_the_weight_the_callers_order_is_left(relevances):
    order, both = joined(by_attention(relevances), relevances, 1.0)
    assert order == list(range(len(relevances)))
    assert sum(both) == pytest.approx(1 if both else 0)


@settings(max_examples=200, deadline=None)
@given(SHARES, WEIGHTS)
def test_relevances_give_the_order(relevances, weight):
    order, both = joined(by_attention(relevances), relevances, weight)
    assert sorted(order) == list(range(len(relevances)))
    assert all(0 <= value <= 1 for value in both)
    assert order == sorted(order, key=lambda position: (-both[position], position if weight else 0))


@settings(max_examples=200, deadline=None)
@given(SHARES.filter(bool), WEIGHTS, st.data())
def test_more_attention_never_costs_places(relevances, weight, data):
    """Its share grows, the others' shrink."""
    one = data.draw(st.integers(0, len(relevances) - 1))
    kept = data.draw(WEIGHTS)
    more = [own + (1 - kept) if place == one else own * kept for place, own in enumerate(relevances)]
    before = joined(by_attention(relevances), relevances, weight)[0].index(one)
    assert joined(by_attention(more), more, weight)[0].index(one) <= before


def test_a_larger_weight_only_moves_towards_the_callers_order():
    relevances = [0.02, 0.3, 0.0, 0.25, 0.01, 0.41, 0.01]
    turned: list[set[tuple[int, int]]] = []
    for step in range(21):
        order = joined(by_attention(relevances), relevances, step / 20)[0]
        turned.append({(a, b) for at, b in enumerate(order) for a in order[at + 1 :] if a < b})
    assert turned[0]
    assert all(later <= earlier for earlier, later in pairwise(turned))
    assert turned[-1] == set()


def test_where_nothing_matches_the_callers_order_counts():
    assert joined([2, 0, 1], [0.0, 0.0, 0.0], 0.1)[0] == [0, 1, 2]
