"""The package as installed: names, what it imports, what it ships."""

from __future__ import annotations

import doctest
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest

import qr_core
import qr_core.scorer

NAMES = [
    "ContextLengthError", "Detection", "Document", "DocumentCache", "EndpointGenerator", "Example", "Explanation",
    "GenerationError", "Generator", "HeadSet", "HeadSetError", "Hit", "InputError", "LocalGenerator",
    "MemoryLimitError", "ModelLoadError", "NonFiniteError", "Pruned", "QRHeadError", "QRScorer", "Ranking",
    "ScorerOptions", "Span", "__version__", "ask", "cache_partition", "detect_heads", "rank_file",
]  # fmt: skip
DEEP = {
    "qr_core.cache": ["SHARED"],
    "qr_core.distributed": ["Summary", "rank_file"],
    "qr_core.document_cache": ["DocumentCache"],
    "qr_core.evaluation.beir": ["BeirSet", "pools_by_title", "pools_from_candidates", "read_beir", "read_candidates"],
    "qr_core.evaluation.examples": ["read_examples"],
}
"""Documented names that do not stand in `qr_core` itself."""


def test_exported_names():
    assert sorted(qr_core.__all__) == sorted(NAMES) == dir(qr_core)
    assert all(hasattr(qr_core, name) for name in NAMES)
    assert version("qrhead") == qr_core.__version__


@pytest.mark.parametrize("module", DEEP)
def test_documented_deep_names(module):
    assert all(hasattr(import_module(module), name) for name in DEEP[module])


def test_old_and_new_places_have_the_same_things():
    assert import_module("qr_core.document_cache").DocumentCache is qr_core.DocumentCache
    assert import_module("qr_core.distributed").rank_file is qr_core.rank_file


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="module 'qr_core' has no attribute 'Scorer'"):
        qr_core.Scorer  # noqa: B018


def test_importing_the_package_loads_nothing_large():
    """Names arrive with their first use, errors and documents without torch."""
    code = (
        "import qr_core, sys\n"
        "print([name for name in sys.modules if name.startswith('qr_core.')])\n"
        "qr_core.Document(text='x'), qr_core.InputError, qr_core.Ranking, qr_core.cache_partition\n"
        "print([name for name in ('torch', 'transformers', 'numpy', 'rich') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["['qr_core.lazy', 'qr_core.version']", "[]"]


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
