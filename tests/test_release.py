"""What `make wheel` built: both archives hold what they should, and nothing else."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

import pytest

import qr_core
from qr_core.mini import EMBEDDED, embedded_model

ROOT = Path(qr_core.__file__).parents[1]
DIST = ROOT / "dist"
NAME = f"qrhead-{qr_core.__version__}"
WEIGHTS = "qr_core/mini/fast/model.safetensors"
TRAINING = "qr_core/training/"
"""In the source archive alone."""
MOST_BYTES = 90 * 2**20
"""Of either archive; the weights are nearly all of it."""

pytestmark = pytest.mark.release


@pytest.fixture(scope="module")
def wheel():
    with zipfile.ZipFile(DIST / f"{NAME}-py3-none-any.whl") as found:
        yield found


@pytest.fixture(scope="module")
def sdist():
    with tarfile.open(DIST / f"{NAME}.tar.gz") as found:
        yield found


def test_there_are_two_of_bounded_size():
    assert sorted(path.name for path in DIST.iterdir()) == [f"{NAME}-py3-none-any.whl", f"{NAME}.tar.gz"]
    for path in DIST.iterdir():
        print(f"{path.name}: {path.stat().st_size / 2**20:.1f} MiB")
        assert path.stat().st_size < MOST_BYTES


def test_the_wheel_holds_every_module_and_datum(wheel):
    names = set(wheel.namelist())
    expected = {path.relative_to(ROOT).as_posix() for path in (ROOT / "qr_core").rglob("*.py")}
    expected -= {name for name in expected if name.startswith(TRAINING)}
    integrations = ROOT / "integrations"
    expected |= {path.relative_to(integrations).as_posix() for path in integrations.rglob("*.py")}
    for model in EMBEDDED:
        expected |= {path.relative_to(ROOT).as_posix() for path in embedded_model(model).iterdir()}
    head_sets = {path.relative_to(ROOT).as_posix() for path in (ROOT / "qr_core/heads/published").rglob("*.json")}
    assert head_sets
    expected |= head_sets
    expected |= {
        f"{package}/py.typed" for package in ("qr_core", "langchain_qrhead", "llama_index/postprocessor/qrhead")
    }
    assert expected - names == set()
    assert wheel.read(WEIGHTS) == (ROOT / WEIGHTS).read_bytes()


def test_the_wheel_holds_nothing_else(wheel):
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert tops == {"qr_core", "langchain_qrhead", "llama_index", f"{NAME}.dist-info"}
    assert [name for name in wheel.namelist() if name.startswith("llama_index/") and "/qrhead/" not in name] == []
    for name in wheel.namelist():
        assert not any(
            part in name for part in (TRAINING, "tools/", "tests/", "notebooks/", "__pycache__", ".pyc", ".pt", ".bin")
        ), name


def test_metadata(wheel):
    text = wheel.read(f"{NAME}.dist-info/METADATA").decode()
    assert f"Version: {qr_core.__version__}\n" in text
    assert "License-Expression: Apache-2.0\n" in text
    assert "Requires-Python: >=3.10\n" in text
    assert f"{NAME}.dist-info/licenses/LICENSE" in wheel.namelist()
    assert wheel.read(f"{NAME}.dist-info/entry_points.txt").decode().strip().endswith("qrhead = qr_core.cli.main:main")


IN_SDIST = (
    "tests/conftest.py", "tests/golden/llama.json.gz", "docs/adapters.md", "docs/images/how-it-works.svg", "mkdocs.yml",
    "notebooks/01_quickstart.ipynb", "Makefile", "CHANGELOG.md", "CITATION.cff", "constraints.txt",
    "qr_core/training/train.py", "tools/structure.py", "qr_core/mini/fast/README.md", WEIGHTS,
)  # fmt: skip


def test_the_sdist_can_be_tested_and_documented(sdist):
    names = set(sdist.getnames())
    assert {f"{NAME}/{name}" for name in IN_SDIST} - names == set()
    assert not any(name.endswith((".pyc", ".pt")) or "__pycache__" in name or "/.venv" in name for name in names)
