"""Files are replaced whole or not at all."""

from __future__ import annotations

import ast
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

import qr_core
from qr_core import InputError
from qr_core.files.replace import add_line, check_writable, make_folder, replacing, write_file, write_named, writing


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


ELSEWHERE = {"files/replace.py", "bulk/files.py", "parallel/usage.py"}
"""What else may write: temporary copies, and a switch of the system's."""


def test_nothing_else_writes_files():
    """Each call that could leave half a file is in this module; what made the model is not in the wheel."""
    root, found = Path(qr_core.__file__).parent, {}
    for path in root.rglob("*.py"):
        name = path.relative_to(root).as_posix()
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call) or name.startswith("training/"):
                continue
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            modes = [a.value for a in [*node.args, *(k.value for k in node.keywords)] if isinstance(a, ast.Constant)]
            opened = called == "open" and any(isinstance(m, str) and m[:1] in ("w", "a", "x") for m in modes)
            if opened or called in ("write_text", "write_bytes", "save_file", "save_pretrained"):
                found.setdefault(name, []).append(node.lineno)
    assert found.keys() <= ELSEWHERE, found
    assert found.keys() >= {"files/replace.py", "bulk/files.py"}


def test_text_that_utf8_has_no_form_for_leaves_the_file(tmp_path):
    path = tmp_path / "heads.json"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_file(path, "\udcff")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_named_file_may_be_a_link_or_a_pipe(tmp_path):
    (tmp_path / "real.json").write_text("old")
    (tmp_path / "link.json").symlink_to("real.json")
    write_named(tmp_path / "link.json", "new")
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "real.json").read_text() == "new"
    check_writable(Path(os.devnull))
    write_named(os.devnull, "gone")


@pytest.mark.parametrize("left", [b"", b"one\n", b"one\nhal"])
def test_a_journal_grows_by_whole_lines(tmp_path, left):
    path = tmp_path / "notes.jsonl"
    path.write_bytes(left)
    add_line(path, b"two")
    assert path.read_bytes() == left + b"\n" * (left[-1:] not in (b"", b"\n")) + b"two\n"


@contextmanager
def nobody():
    """As a user who may not do everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no such permissions here")
@pytest.mark.parametrize("mode", [0o444, 0o555, 0o000, 0o666], ids=oct)
def test_a_folder_that_may_not_be_entered_or_written_is_one_line(mode):
    """Also one whose names may be listed."""
    with tempfile.TemporaryDirectory() as outer:
        os.chmod(outer, 0o755)  # noqa: S103 - it is empty, and goes away
        folder = Path(outer) / "folder"
        folder.mkdir()
        os.chmod(folder, mode)
        try:
            with nobody():
                for refuse, path in ((check_writable, folder / "heads.json"), (make_folder, folder)):
                    with pytest.raises(InputError, match="cannot write") as told:
                        refuse(path)
                    assert "\n" not in str(told.value)
        finally:
            os.chmod(folder, 0o700)
