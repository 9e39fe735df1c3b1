"""Work folders that cannot be used."""

from __future__ import annotations

import pytest

from qr_core import InputError
from qr_core.files.workfolder import WorkFolder


def test_a_work_folder_that_cannot_be_used(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot use"):
        WorkFolder(tmp_path / "file", {})
    (tmp_path / "job.json").write_text("{")
    with pytest.raises(InputError, match="cannot use"):
        WorkFolder(tmp_path, {})
