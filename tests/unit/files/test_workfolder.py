"""Work folders: what is done is kept for the same job, and only for it."""

from __future__ import annotations

import pytest
import torch

from qr_core import InputError
from qr_core.files.workfolder import WorkFolder


def test_a_work_folder_that_cannot_be_used(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="it is a file, name a folder"):
        WorkFolder(tmp_path / "file", {})
    (tmp_path / "job.json").write_text("{")
    with pytest.raises(InputError, match="cannot use"):
        WorkFolder(tmp_path, {})


def test_items_are_kept_for_the_same_job_only(tmp_path):
    folder = WorkFolder(tmp_path / "work", {"seed": 0})
    assert folder.load(3) is None
    folder.save(3, {"scores": torch.arange(3.0)})
    again = WorkFolder(tmp_path / "work", {"seed": 0})
    assert again.load(3)["scores"].tolist() == [0, 1, 2]
    assert sorted(path.name for path in folder.path.iterdir()) == ["000003.safetensors", "job.json"]
    with pytest.raises(InputError, match=r"another run \(seed differ\)"):
        WorkFolder(tmp_path / "work", {"seed": 1})


def test_a_damaged_item_is_made_again(tmp_path):
    folder = WorkFolder(tmp_path, {})
    folder.save(0, {"scores": torch.zeros(2)})
    (tmp_path / "000000.safetensors").write_bytes(b"torn")
    assert folder.load(0) is None
