"""Documents from files and folders, and the errors that name what is wrong with them."""

from __future__ import annotations

import gzip
import io
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from qr_core import Document, InputError
from qr_core.files import inputs
from qr_core.files.inputs import read_documents, read_folder, read_text


def test_json_lines(tmp_path):
    path = tmp_path / "docs.jsonl"
    path.write_text('{"text": "a", "id": "x", "title": "T"}\n\n{"text": "b", "more": 1}\n', encoding="utf-8")
    assert read_documents(str(path)) == [Document("a", "T", "x"), Document("b")]


def test_text_lines_keep_their_numbers(tmp_path):
    path = tmp_path / "docs.txt"
    path.write_bytes("\ufeffone\r\n\r\nthr\u2028ee\r\n".encode())
    assert read_documents(str(path)) == [Document("one", id=1), Document("thr\u2028ee", id=3)]


def test_gzip_by_ending(tmp_path):
    path = tmp_path / "docs.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"text": "a"}'))
    assert read_documents(str(path)) == [Document("a")]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"text": "a"}\n{"text": \n', "line 2: not valid JSON"),
        (b'{"text": "a"}\n\n[1]\n', "line 3: not a JSON object"),
        (b'{"txt": "a"}', "line 1: document 0 has no 'text' field"),
        (b'{"text": 1}', "line 1: .*'text' is of type int"),
        (b"[" * 100_000, "line 1: not valid JSON"),
        (b'{"text": "\xff"}', "not UTF-8 text"),
    ],
)
def test_malformed_json_lines_are_named(tmp_path, content, words):
    path = tmp_path / "docs.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words):
        read_documents(str(path))


@pytest.mark.parametrize(
    ("name", "words"), [("absent.jsonl", "No such file"), ("docs.csv", "ending in .jsonl or .txt")]
)
def test_files_that_cannot_be_read(tmp_path, name, words):
    (tmp_path / "docs.csv").write_text("a,b")
    with pytest.raises(InputError, match=words):
        read_documents(str(tmp_path / name))


def test_a_broken_gzip_is_an_error(tmp_path):
    path = tmp_path / "docs.txt.gz"
    path.write_bytes(b"no gzip")
    with pytest.raises(InputError, match="cannot read"):
        read_documents(str(path))


def test_a_folder(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "two.md").write_text("two\nlines")
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / ".hidden").write_text("no")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\x00\xff")
    os.symlink(tmp_path / "a.txt", tmp_path / "link.txt")
    documents, left_out = read_folder(tmp_path)
    assert documents == [
        Document("one", id="a.txt"),
        Document("two\nlines", id="b/two.md"),
        Document("one", id="link.txt"),
    ]
    assert [str(path) for path in left_out] == ["picture.png"]


def test_a_link_that_leaves_the_folder_is_refused(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    os.symlink(tmp_path / "secret.txt", tmp_path / "in" / "link.txt")
    with pytest.raises(InputError, match="leads out of"):
        read_folder(tmp_path / "in")


def test_a_missing_folder(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_folder(tmp_path / "absent")


def test_damaged_gzip_is_named(tmp_path):
    whole = gzip.compress(b'{"text": "a"}\n' * 50)
    (tmp_path / "bad.jsonl.gz").write_bytes(whole[:20] + b"\xff" * 12 + whole[32:])
    with pytest.raises(InputError, match="cannot read"):
        read_documents(str(tmp_path / "bad.jsonl.gz"))
    documents, left_out = read_folder(tmp_path)
    assert documents == []
    assert [path.name for path in left_out] == ["bad.jsonl.gz"]


def test_a_link_in_circles_is_passed_over(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    documents, _ = read_folder(tmp_path)
    assert [document.id for document in documents] == ["a.txt"]


def test_standard_input_is_read_within_bounds(monkeypatch):
    def typed(raw: bytes):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))
        return read_documents("-")

    assert typed(b"one\ntwo\n") == [Document("one", id=1), Document("two", id=2)]
    assert typed(b' {"text": "one"}') == [Document("one")]
    with pytest.raises(InputError, match="standard input is not UTF-8 text"):
        typed(b"caf\xe9")
    monkeypatch.setattr(inputs, "MOST_BYTES", 5)
    with pytest.raises(InputError, match="standard input has more than 5 bytes"):
        typed(b"123456")
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputError, match="standard input is closed"):
        read_documents("-")


class Counting(io.BytesIO):
    """Remembers the largest read."""

    largest = 0

    def read(self, size=-1):
        self.largest = max(self.largest, size if size >= 0 else 2**63)
        return super().read(size)


def test_files_and_standard_input_are_read_in_blocks(tmp_path, monkeypatch):
    """A buffer of the whole limit would fail under a limit of memory, however small the file is."""
    streams = [Counting(b"a" * 3_000_000), Counting(b"a" * 3_000_000)]
    monkeypatch.setattr(Path, "open", lambda self, mode: streams[0])
    assert len(read_text(tmp_path / "a.txt")) == 3_000_000
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=streams[1]))
    assert len(inputs.read_source("-")) == 3_000_000
    assert 0 < max(stream.largest for stream in streams) <= inputs.BLOCK


def test_standard_input_has_the_limit_of_files(monkeypatch):
    monkeypatch.setattr(inputs, "MOST_BYTES", 10)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=Counting(b"a" * 11)))
    with pytest.raises(InputError, match="standard input has more than 10 bytes"):
        inputs.read_source("-")
