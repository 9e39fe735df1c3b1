"""Needles and haystacks."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qr_core import InputError
from qr_core.detection.needles import NEEDLES, Needle, default_haystack, hidden_needles, hide, read_needles

HAYSTACK = "The oven is lit at five. Bread is baked on every day of the week. The baker goes home at noon."


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([0, 0.1, 0.5, 0.9, 1]), st.none() | st.integers(20, 600), st.sampled_from(NEEDLES))
def test_a_needle_is_hidden_whole_within_its_length(depth, tokens, needle):
    def count(text):
        return len(text.split())

    hidden = hide(HAYSTACK, needle, depth, None if tokens is None else tokens + count(needle.sentence), count)
    assert hidden.text[hidden.start : hidden.end] == needle.sentence
    if tokens is not None:
        assert count(hidden.text) <= tokens + count(needle.sentence)
    if depth == 0:
        assert hidden.start == 0
    if depth == 1:
        assert hidden.end == len(hidden.text)


def test_needles_from_a_file(tmp_path):
    path = tmp_path / "needles.jsonl"
    path.write_text(json.dumps({"needle": "A b c.", "question": "q?", "answer": "b c"}))
    assert read_needles(path) == [Needle("A b c.", "q?", "b c")]
    for row, words in (
        ({"needle": "A."}, "expected the strings"), ({"needle": "A.", "question": "q", "answer": "B"}, "not part"),
    ):  # fmt: skip
        path.write_text(json.dumps(row))
        with pytest.raises(InputError, match=f"line 1: .*{words}"):
            read_needles(path)
    path.write_text("")
    with pytest.raises(InputError, match="holds no needles"):
        read_needles(path)
    with pytest.raises(InputError, match="blank"):
        hide(" \n", NEEDLES[0], 0.5, None, len)
    with pytest.raises(InputError, match="no room"):
        hide(HAYSTACK, NEEDLES[0], 0.5, 3, len)
    assert len(default_haystack()) > 2000


def test_each_needle_at_each_depth_of_each_length(tmp_path):
    haystack, needles = tmp_path / "haystack.txt", tmp_path / "needles.jsonl"
    haystack.write_text(HAYSTACK)
    needles.write_text(json.dumps({"needle": "A b c.", "question": "q?", "answer": "b c"}))
    found = hidden_needles(lambda text: len(text.split()), [20, 40], [0, 1], haystack, needles)
    assert [case.depth for case in found] == [0, 1, 0, 1]
    assert [case.text.startswith("A b c.") for case in found] == [True, False, True, False]
    assert len(found[0].text.split()) <= 20 < len(found[2].text.split()) <= 40
    assert len(hidden_needles(len, [2000], [0.5])) == len(NEEDLES)
