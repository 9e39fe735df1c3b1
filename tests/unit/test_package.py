"""The package as installed: names, what it imports, what it ships."""

from __future__ import annotations

import doctest
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import qr_core
import qr_core.scorer

NAMES = [
    "ContextLengthError", "Document", "Example", "GenerationError", "HeadSet", "HeadSetError", "Hit", "InputError",
    "MemoryLimitError", "ModelLoadError", "NonFiniteError", "Pruned", "QRHeadError", "QRScorer", "Ranking", "Span",
    "__version__", "ask", "cache_partition", "detect_heads",
]  # fmt: skip


def test_exported_names():
    assert sorted(qr_core.__all__) == sorted(NAMES)
    assert all(hasattr(qr_core, name) for name in NAMES)
    assert version("qrhead") == qr_core.__version__


def test_docstring_example():
    failed, tried = doctest.testmod(qr_core.scorer)
    assert tried > 0
    assert failed == 0


def test_core_imports_neither_framework():
    code = (
        "import qr_core, qr_core.cli.main, sys\n"
        "print([m for m in sys.modules if m.startswith(('langchain', 'llama_index'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_missing_framework_names_the_command(tmp_path):
    """With the framework hidden, importing an adapter says what to install."""
    for blocked, module, extra in (
        ("langchain_core", "langchain_qrhead", "langchain"),
        ("llama_index.core", "llama_index.postprocessor.qrhead", "llama-index"),
    ):
        code = (
            "import sys\n"
            "class Hide:\n"
            "    def find_spec(self, name, path=None, target=None):\n"
            f"        if name == {blocked!r} or name.startswith({blocked + '.'!r}):\n"
            "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
            "sys.meta_path.insert(0, Hide())\n"
            f"import {module}\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode != 0
        assert f"pip install 'qrhead[{extra}]'" in done.stderr


def test_the_license_and_types_ship():
    root = Path(qr_core.__file__).parents[1]
    assert "Apache License" in (root / "LICENSE").read_text()
    assert (root / "qr_core" / "py.typed").exists()
