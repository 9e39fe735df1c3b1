"""Files are replaced whole or not at all."""

from __future__ import annotations

import pytest

from qr_core import InputError
from qr_core.files.replace import replacing, writing


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_is_replaced_in_one_step(tmp_path, durable):
    path = tmp_path / "note.json"
    path.write_text("old")
    with replacing(path, durable=durable) as draft:
        draft.write_text("new")
        assert draft.parent == tmp_path
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_what_was_there_and_nothing_beside_it(tmp_path):
    path = tmp_path / "note.json"
    path.write_text("old")

    def fail():
        with replacing(path) as draft:
            draft.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_writer_left_is_written_over(tmp_path):
    path = tmp_path / "note.json"
    (tmp_path / "note.json.tmp").write_text("torn and longer")
    with replacing(path) as draft:
        draft.write_text("new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_do_not_share_a_draft(tmp_path):
    path = tmp_path / "note.json"
    with replacing(path, shared=True) as first, replacing(path, shared=True) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"


def test_a_file_that_cannot_be_written_is_one_line(tmp_path):
    path = tmp_path / "nowhere" / "page.html"
    with (
        pytest.raises(InputError, match=r"cannot write .*page\.html: No such file or directory"),
        writing(path),
    ):
        path.write_text("")
