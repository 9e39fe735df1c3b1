"""TREC files: any id is one column, and different ids stay different."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qr_core.files.inputs import read_text
from qr_core.files.trec import read_run, unword, word, write_qrels, write_run
from tests.any_text import any_text


@pytest.mark.parametrize(
    ("key", "column"),
    [("d1", "d1"), ("", "\\"), ("a b", "a\\x{20}b"), ("a\\b", "a\\\\b"), ("a\u2028\ud800", "a\\x{2028}\\x{d800}")],
)
def test_an_id_is_one_column(key, column):
    assert word(key) == column


def test_a_run_is_written_best_first(tmp_path):
    write_run(tmp_path / "run.trec", "qr", {"q 1": {"a": 0.5, "b": 1.5, "c": 0.5}})
    lines = (tmp_path / "run.trec").read_text().splitlines()
    assert lines == ["q\\x{20}1 Q0 b 1 1.5 qr", "q\\x{20}1 Q0 a 2 0.5 qr", "q\\x{20}1 Q0 c 3 0.5 qr"]
    write_qrels(tmp_path / "qrels.txt", {"q1": {"a": 2, "b": 0}})
    assert (tmp_path / "qrels.txt").read_text() == "q1 0 a 2\nq1 0 b 0\n"


@settings(max_examples=200, deadline=None)
@given(any_text)
@example("\\x{20}")
@example("\U0010ffff")
def test_an_id_is_read_as_it_was_written(key):
    assert unword(word(key)) == key


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(any_text, st.lists(any_text, unique=True, min_size=1, max_size=4), max_size=3))
def test_a_run_is_read_back(tmp_path_factory, ranked):
    path = tmp_path_factory.mktemp("run") / "run.trec"
    write_run(path, "qr", {query: {key: -place for place, key in enumerate(keys)} for query, keys in ranked.items()})
    assert read_run(read_text(path), "run.trec") == ranked


def test_other_programs_backslashes_are_kept():
    assert read_run("q1 Q0 a\\b 1 1.0 x\r\n\nq1 Q0 c\\x{110000} 2 0.5 x\n", "r") == {"q1": ["a\\b", "c\\x{110000}"]}
