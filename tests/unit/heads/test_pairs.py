"""Heads as pairs: written, read back, drawn at random."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qr_core import HeadSet
from qr_core.heads.pairs import format_pairs, parse_pairs, random_pairs
from tests.unit.heads.sets import SHAPE


@given(st.lists(st.tuples(st.integers(0, 999), st.integers(0, 999)), min_size=1))
def test_what_is_written_is_read_back(pairs):
    assert parse_pairs(format_pairs(pairs)) == pairs
    assert parse_pairs(f"  {format_pairs(pairs, ' , ')} ") == pairs


@pytest.mark.parametrize("text", ["", "all", "1", "1-", "1-2,", "1-2;3-4", "-1-2", "1.5-2", "9999999-1"])
def test_what_is_no_list_of_heads(text):
    assert parse_pairs(text) is None


def test_a_set_lists_each_head_once_best_first():
    fields = {"model": "m", "config": SHAPE, "template": "plain", "criterion": "c", "data": "d"}
    found = HeadSet(**fields, heads=[(2, 3, None), (0, 1, None), (2, 3, None), (0, 0, None)])
    assert found.pairs() == [(2, 3), (0, 1), (0, 0)]
    assert found.by_layer() == {0: [0, 1], 2: [3]}
    assert found.deepest == 2


def test_a_shape_lists_all_heads():
    assert len(SHAPE.pairs()) == len(set(SHAPE.pairs())) == 12
    assert SHAPE.pairs(without=(0, 2)) == [(1, 0), (1, 1), (1, 2), (1, 3)]


def test_random_heads_leave_out_the_chosen():
    drawn = random_pairs(SHAPE, 3, 0, [(0, 0), (1, 1)])
    assert len(set(drawn)) == 3
    assert not {(0, 0), (1, 1)} & set(drawn)
    assert drawn == random_pairs(SHAPE, 3, 0, [(0, 0), (1, 1)])
    assert len(random_pairs(SHAPE, 99, 0)) == 12
