"""Encoded documents are kept on disk: who may read them, how much is kept, several processes, a full disk."""

from __future__ import annotations

import multiprocessing
import os
import time

import pytest
import torch

from qr_core import InputError
from qr_core.cache import folder as document_folder
from qr_core.cache.folder import DocumentFolder, entries, purge
from tests.helpers import DOCUMENTS, QUERY, in_order
from tests.unit.cache.encoded import entry, key_of, scorer_of


@pytest.mark.skipif(os.name != "posix", reason="modes")
def test_the_folder_is_private(tmp_path, expected):
    old = os.umask(0)
    try:
        scorer_of(tmp_path / "a" / "cache").rank(QUERY, DOCUMENTS)
    finally:
        os.umask(old)
    folder = tmp_path / "a" / "cache"
    assert folder.stat().st_mode & 0o777 == 0o700
    files = list(folder.iterdir())
    assert len(files) == len(DOCUMENTS)
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert not any(word in path.read_bytes() for path in files for word in (b"lighthouse", b"Harbour", b"oven"))
    folder.chmod(0o750)
    with pytest.raises(InputError, match="open to other users"):
        DocumentFolder(folder)
    folder.chmod(0o700)
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(InputError, match="a link or no folder"):
        DocumentFolder(tmp_path / "link")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot make the document cache"):
        DocumentFolder(tmp_path / "file")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_another_process_s_entries_are_used(tmp_path, counted, dtype):
    first = scorer_of(tmp_path / "cache", dtype=dtype)
    ranking = first.rank(QUERY, DOCUMENTS)
    second = scorer_of(tmp_path / "cache", dtype=dtype)  # as a fresh process: nothing in memory
    shapes = counted(second)
    assert in_order(second.rank(QUERY, DOCUMENTS)) == in_order(ranking)
    assert len(shapes) == 2  # query and N/A


def test_the_folder_keeps_to_its_bound(tmp_path):
    folder = DocumentFolder(tmp_path / "cache", 40_000)
    size = None
    for number in range(30):
        folder.put({key_of(number): entry(16, value=number)})
        size = size or entries(folder.path)[0].bytes
        os.utime(folder.path / f"{key_of(number)}.safetensors", (number, number))
        if number >= 3:
            assert folder.get(key_of(0), entry(), 16) is not None  # used all the time: the newest, by access
        assert sum(e.bytes for e in entries(folder.path)) <= 40_000
    kept = {path.stem for path in folder.path.iterdir()}
    assert key_of(0) in kept
    assert key_of(29) in kept
    assert key_of(1) not in kept
    folder.put({key_of(99): entry(1000)})  # larger than the bound
    assert key_of(99) not in {path.stem for path in folder.path.iterdir()}


def test_what_is_not_an_entry_is_left_alone(tmp_path):
    folder = DocumentFolder(tmp_path / "cache", 10**6)
    folder.put({key_of(1): entry()})
    others = ["notes.txt", "0123.safetensors", "model.safetensors"]
    for name in others:
        (folder.path / name).write_text("mine")
    (folder.path / f"{key_of(2)}.safetensors").symlink_to(folder.path / "notes.txt")
    draft, old = (folder.path / f".{key_of(3)}.{n}.0123abcd.tmp" for n in (1, 2))
    draft.write_text("half")
    old.write_text("half")
    os.utime(old, (time.time() - 10_000,) * 2)
    folder.put({key_of(4): entry()})
    assert draft.exists()
    assert not old.exists()
    assert purge(folder.path)[0] == 3  # two entries and the draft
    assert sorted(path.name for path in folder.path.iterdir()) == sorted([*others, f"{key_of(2)}.safetensors"])


def test_a_full_disk_is_a_warning(tmp_path, monkeypatch, expected, caplog):
    scorer = scorer_of(tmp_path / "cache")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(document_folder.os, "replace", full)
    assert in_order(scorer.rank(QUERY, DOCUMENTS)) == pytest.approx(expected, abs=1e-6)
    assert "No space left on device" in caplog.text
    assert list((tmp_path / "cache").iterdir()) == []


def work(folder, seed, failed):
    """One of several processes that read and write the same entries, with a bound that makes them evict."""
    try:
        torch.set_num_threads(1)
        shared = DocumentFolder(folder, 60_000)
        for step in range(60):
            number = (step * (7 + seed)) % 12
            found = shared.get(key_of(number), entry(), 16)
            if found is not None and not torch.equal(found.keys[0], entry(16, value=number).keys[0]):
                failed.put(f"{number} is not what was put")
            shared.put({key_of(number): entry(16, value=number)})
    except Exception as error:
        failed.put(repr(error))


def test_processes_share_a_folder(tmp_path):
    context = multiprocessing.get_context("fork")
    failed = context.Queue()
    processes = [context.Process(target=work, args=(tmp_path / "cache", seed, failed)) for seed in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert failed.empty()
    found = entries(tmp_path / "cache")
    assert not any(e.unfinished for e in found)
    assert sum(e.bytes for e in found) <= 60_000
