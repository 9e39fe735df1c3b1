"""Every notebook runs from top to bottom, offline, and says at its top what to change for a real model."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
SECONDS = 120

pytestmark = pytest.mark.notebooks


def test_there_are_six():
    assert [path.name[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04", "05", "06"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore")
def test_notebook(path, monkeypatch):
    nbformat = pytest.importorskip("nbformat", reason="pip install 'qrhead[notebooks]'")
    client = pytest.importorskip("nbclient", reason="pip install 'qrhead[notebooks]'")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    notebook = nbformat.read(path, as_version=4)
    opening = notebook.cells[0].source
    assert "For a real model" in opening
    assert any(cell.get("outputs") for cell in notebook.cells), "outputs are kept"
    clock = time.monotonic()
    client.NotebookClient(notebook, timeout=SECONDS, resources={"metadata": {"path": str(FOLDER)}}).execute()
    print(f"{path.name}: {time.monotonic() - clock:.0f} s")
