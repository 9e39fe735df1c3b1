"""Files of encoded documents that are damaged, swapped or no files at all are not used, but made again."""

from __future__ import annotations

import os
import shutil

import pytest
import torch
from safetensors.torch import load_file

from qr_core.cache import folder as document_folder
from qr_core.files.tensors import packed
from tests.helpers import DOCUMENTS, QUERY, in_order
from tests.unit.cache.encoded import scorer_of


def flipped(path):
    raw = bytearray(path.read_bytes())
    raw[-5] ^= 1
    path.write_bytes(raw)


def truncated(path):
    path.write_bytes(path.read_bytes()[:-100])


def emptied(path):
    path.write_bytes(b"")


def nonsense(path):
    path.write_bytes((2**40).to_bytes(8, "little") + b"[" * 5000)


def huge(path):
    with path.open("ab") as file:
        file.truncate(100 * 2**20)


def relabelled(path):
    """Another document's entry under this name."""
    other = next(p for p in path.parent.iterdir() if p != path and p.stat().st_size != path.stat().st_size)
    path.write_bytes(other.read_bytes())


def reshaped(path, change=lambda tensor: tensor[:, :, :1].clone()):
    """A consistent entry under the right key, of another shape."""
    found = load_file(path)
    names = {name: change(tensor) for name, tensor in found.items()}
    path.write_bytes(packed(names, {"format": document_folder.FORMAT, "key": path.stem}))


def retyped(path):
    reshaped(path, lambda tensor: tensor.to(torch.bfloat16))


def linked(path):
    target = path.parent.parent / "elsewhere"
    path.rename(target)
    path.symlink_to(target)


def piped(path):
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    "damage", [flipped, truncated, emptied, nonsense, huge, relabelled, reshaped, retyped, linked, piped]
)
def test_what_is_not_sound_is_made_again(tmp_path, expected, counted, damage, caplog):
    folder = tmp_path / "cache"
    scorer_of(folder).rank(QUERY, DOCUMENTS)
    damaged = sorted(folder.iterdir())
    for path in damaged:
        shutil.copy(path, tmp_path / path.name)
    damage(damaged[0])
    fresh = scorer_of(folder)
    shapes = counted(fresh)
    assert in_order(fresh.rank(QUERY, DOCUMENTS)) == pytest.approx(expected, abs=1e-6)
    assert [batch for batch, _ in shapes] == [1, 1, 1]  # one document, query, N/A
    assert "not usable" in caplog.text
    assert damaged[0].is_file()
    assert not damaged[0].is_symlink()
    assert load_file(damaged[0]).keys() == load_file(tmp_path / damaged[0].name).keys()
    if damage is linked:
        assert (tmp_path / "elsewhere").exists()  # what a link points to is not ours to remove
