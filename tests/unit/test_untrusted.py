"""Untrusted files: head sets, packed documents, run folders, work folders, weights. None may run code, write
elsewhere, or take memory without bound; each is refused with one clear error, or made again.
"""

from __future__ import annotations

import ast
import gzip
import json
import os
import shutil
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import qr_core
from qr_core import Example, InputError, ModelLoadError, QRScorer, detect_heads
from qr_core.evaluation.journal import Journal
from qr_core.evaluation.runner import file_name
from qr_core.files.inputs import read_documents, read_folder, read_text
from qr_core.files.workfolder import WorkFolder
from tests.helpers import DOCUMENTS, GOLDEN, QUERY

ROOT = Path(qr_core.__file__).parents[1]
SOURCES = [*(ROOT / "qr_core").rglob("*.py"), *(ROOT / "integrations").rglob("*.py")]


def test_nothing_is_unpickled_or_evaluated():
    """No module that runs code from data is imported, and every `torch.load` reads weights only."""
    forbidden = {"pickle", "cPickle", "marshal", "shelve", "dill", "joblib", "cloudpickle", "yaml", "importlib.util"}
    loads = 0
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
                assert not forbidden & set(names), path
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            assert called not in ("eval", "exec", "compile", "__import__", "np.load", "numpy.load", "os.system"), path
            if called == "torch.load":
                loads += 1
                assert any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in node.keywords), path
            assert not any(k.arg == "shell" and ast.unparse(k.value) != "False" for k in node.keywords), path
    assert len(SOURCES) > 100
    assert loads > 0


def test_a_packed_bomb_is_refused_early(tmp_path, monkeypatch):
    monkeypatch.setattr("qr_core.files.inputs.UNPACKED_BYTES", 2**20)
    bomb = tmp_path / "docs.txt.gz"
    bomb.write_bytes(gzip.compress(b"a" * 2**25))
    assert bomb.stat().st_size * 100 < 2**25
    with pytest.raises(InputError, match=r"docs\.txt\.gz unpacks to more than .* bytes"):
        read_documents(str(bomb))
    documents, left_out = read_folder(tmp_path)
    assert (documents, [path.name for path in left_out]) == ([], ["docs.txt.gz"])


def test_text_that_packs_well_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("qr_core.files.inputs.UNPACKED_BYTES", 2**10)
    text = "\n".join(f"{n} The tide turns at six, and the ferry leaves at {n % 24}." for n in range(2000))
    (tmp_path / "docs.txt.gz").write_bytes(gzip.compress(text.encode()))
    assert len(read_documents(str(tmp_path / "docs.txt.gz"))) == 2000


@pytest.mark.parametrize("name", ["docs.txt", "docs.txt.gz"])
def test_a_file_beyond_the_bound_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.setattr("qr_core.files.inputs.MOST_BYTES", 1000)
    for size, fits in ((1000, True), (1001, False)):
        raw = b"a" * size
        (tmp_path / name).write_bytes(gzip.compress(raw) if name.endswith("gz") else raw)
        if fits:
            assert len(read_text(tmp_path / name)) == 1000
        else:
            with pytest.raises(InputError, match="more than 1,000 bytes: split it"):
                read_text(tmp_path / name)


@pytest.mark.parametrize("note", ["[" * 10**5, "{", '{"a": ' + "9" * 5000 + "}", "\xff"])
def test_a_note_of_a_work_folder_that_is_broken(tmp_path, note):
    (tmp_path / "job.json").write_text(note, encoding="latin-1")
    with pytest.raises(InputError, match=r"cannot use"):
        WorkFolder(tmp_path, {"a": 1})


def test_sizes_in_a_work_folder_are_bounded(tmp_path, monkeypatch):
    folder = WorkFolder(tmp_path, {"a": 1})
    folder.save(0, {"raw": torch.zeros(4)})
    assert folder.load(0) is not None
    monkeypatch.setattr("qr_core.files.workfolder.ITEM_BYTES", 10)
    assert folder.load(0) is None
    monkeypatch.setattr("qr_core.files.workfolder.NOTE_BYTES", 3)
    with pytest.raises(InputError, match="more than 3 bytes"):
        WorkFolder(tmp_path, {"a": 1})
    (tmp_path / "run").mkdir()
    Journal(tmp_path / "run", {}).add("q", {"seconds": 1.0})
    monkeypatch.setattr("qr_core.evaluation.journal.MOST_BYTES", 3)
    with pytest.raises(InputError, match="more than 3 bytes"):
        Journal(tmp_path / "run", {})


@pytest.mark.parametrize("name", ["records.jsonl", "job.json", "job.tmp", "000000.tmp"])
def test_a_work_folder_writes_through_no_link(tmp_path, name):
    (tmp_path / "mine").write_text("keep")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / name).symlink_to(tmp_path / "mine")
    with pytest.raises(InputError, match=f"{name} is a symbolic link"):
        Journal(tmp_path / "work", {})
    assert (tmp_path / "mine").read_text() == "keep"


def _set(folder: Path, key: str = "d1", query: str = "q1") -> list[str]:
    """A BEIR folder of one question and two documents; the options that name it."""
    (folder / "qrels").mkdir(parents=True)
    rows = [{"_id": key, "text": "The oven is lit at five."}, {"_id": "d2", "text": "The pier is closed."}]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "queries.jsonl").write_text(json.dumps({"_id": query, "text": "When is the oven lit?"}))
    (folder / "qrels" / "test.tsv").write_text(f"head\n{query}\t{key}\t1")
    (folder / "pools.jsonl").write_text(json.dumps({"query-id": query, "candidates": [key, "d2"]}))
    return ["eval", "--data", str(folder), "--candidates", str(folder / "pools.jsonl"), "--systems", "bm25"]


@pytest.mark.parametrize("name", ["report.md", "metrics.json", "bm25.trec", "work"])
def test_a_run_folder_writes_through_no_link(run, tmp_path, name):
    out, mine = tmp_path / "out", tmp_path / "mine"
    out.mkdir()
    mine.mkdir() if name == "work" else mine.write_text("keep")
    (out / name).symlink_to(mine)
    status, _, err = run(*_set(tmp_path / "set"), "--out", str(out))
    assert status == 2
    assert f"{name} is a symbolic link" in " ".join(err.split())
    assert [*mine.iterdir()] == [] if name == "work" else mine.read_text() == "keep"


@pytest.mark.parametrize("key", ["../../escaped", "/etc/escaped", "a\0b"])
def test_ids_never_become_paths(run, tmp_path, key):
    out = tmp_path / "deep" / "er" / "out"
    status, _, err = run(*_set(tmp_path / "deep" / "er" / "set", key, key), "--out", str(out))
    assert status == 0, err
    made = {path.name for path in out.parent.parent.rglob("*")} | {path.name for path in tmp_path.iterdir()}
    assert not any("escaped" in name or "a\0" in name for name in made)
    assert len((out / "bm25.trec").read_text().splitlines()) == 2


def test_names_of_systems_stay_in_the_folder():
    for name in ("..", ".", "../../x", "/etc/passwd", "a/../..", "..\\..\\x", "random-heads 0"):
        found = file_name(name)
        assert "/" not in found
        assert "\\" not in found
        assert not found.startswith(".")


EXAMPLES = [Example(f"e{n}", QUERY, tuple(DOCUMENTS), (0,)) for n in range(2)]


@pytest.mark.parametrize(
    "tensors",
    [
        {"raw": torch.zeros(1)},
        {"other": torch.zeros(1)},
        {name: torch.zeros(2, 2) for name in ("raw", "calibrated", "filtered")},
        {name: torch.zeros(16, 3, dtype=torch.int64) for name in ("raw", "calibrated", "filtered")},
        {name: torch.full((16, 3), torch.nan) for name in ("raw", "calibrated", "filtered")},
    ],
)
def test_planted_results_of_a_detection_are_measured_again(tmp_path, tensors):
    scorer = QRScorer.from_pretrained(GOLDEN / "tiny-llama", heads="all", template="plain", device="cpu")
    options = {"num_heads": 1, "max_layer": 1, "work": tmp_path}
    first = detect_heads(scorer, EXAMPLES, **options)
    assert len(first.candidates) == 16
    save_file(tensors, tmp_path / "000001.safetensors")
    again = detect_heads(scorer, EXAMPLES, **options)
    assert torch.equal(again.measured[1].raw, first.measured[1].raw)
    assert load_file(tmp_path / "000001.safetensors").keys() == {"raw", "calibrated", "filtered"}


def _lying(header: dict | bytes, length: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + bytes(64)


LIES = {
    "a header longer than the file": _lying(b"{}", 2**62),
    "a header that is no JSON": _lying(b"\xff" * 8),
    "a header too deep": _lying(b"[" * 10**5),
    "a tensor beyond the file": _lying({"x": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}),
    "a shape that is not its bytes": _lying({"x": {"dtype": "F32", "shape": [1000], "data_offsets": [0, 64]}}),
    "nothing": b"",
}


@pytest.mark.parametrize("lie", LIES)
def test_weights_whose_header_lies_are_refused(tmp_path, lie):
    folder = tmp_path / "model"
    shutil.copytree(GOLDEN / "tiny-llama", folder)
    (folder / "model.safetensors").write_bytes(LIES[lie])
    with pytest.raises(ModelLoadError):
        QRScorer.from_pretrained(folder, heads="1-1", device="cpu").rank(QUERY, DOCUMENTS)


@pytest.mark.parametrize("lie", LIES)
def test_work_whose_header_lies_is_made_again(tmp_path, lie):
    folder = WorkFolder(tmp_path, {})
    (tmp_path / "000000.safetensors").write_bytes(LIES[lie])
    assert folder.load(0) is None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_in_a_folder_is_passed_over(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "a.txt").write_text("text")
    assert [document.id for document in read_folder(tmp_path)[0]] == ["a.txt"]
