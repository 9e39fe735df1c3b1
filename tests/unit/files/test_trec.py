"""TREC files: any id is one column, and different ids stay different."""

from __future__ import annotations

import pytest

from qr_core.files.trec import word, write_qrels, write_run


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
