"""How the code hangs together: order of packages, cycles, long signatures and files, tests that mirror the packages.

`python tools/structure.py` prints the same in figures; `lint-imports` of `make check` holds the order, too.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tools import structure

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "tests" / "unit"
ELSEWHERE = {"demo", "server"}
"""Packages without tests in `tests/unit`: data, and what `tests/server` asks over HTTP."""
ACROSS = {"kills", "limits", "package", "slow_limits", "structure", "untrusted"}
"""Tests of what no single module answers for."""


@pytest.fixture(scope="module")
def order() -> list[list[str]]:
    return structure.contract(ROOT)


@pytest.fixture(scope="module")
def found(order) -> structure.Structure:
    return structure.inspect(ROOT, order)


def test_no_package_imports_one_above_it(found):
    assert found.upward == []


def test_nothing_imports_in_circles(found):
    assert structure.cycles(found.packages) == []
    assert structure.cycles(found.modules) == []


def test_no_signature_is_long(found):
    assert found.long_signatures == []


def test_no_file_is_long(found):
    assert found.long_files == []


def test_every_package_has_its_place(found, order):
    """The contract is exhaustive; nothing imports the package's own front."""
    listed = [package for layer in order for package in layer]
    assert len(listed) == len(set(listed))
    assert set(found.packages) - {""} <= set(listed)
    assert [name for name, targets in found.modules.items() if "qr_core" in targets and name != "qr_core"] == []


def test_contributing_tells_the_same_order(order):
    """Its table names every package once, from the lowest to the highest."""
    page = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    rows = re.findall(r"^\| (`.*`) \|", page.partition("| package | what is in it |")[2].partition("\n\n")[0], re.M)
    told = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    height = {name: -place for place, layer in enumerate(order) for name in layer}
    assert sorted(told) == sorted(height)
    assert [height[name] for name in told] == sorted(height[name] for name in told)


def test_the_wheel_has_every_package_but_training():
    (listed,) = re.findall(r"^packages = (\[\n.*?^\])", (ROOT / "pyproject.toml").read_text("utf-8"), re.M | re.S)
    inits = (path.relative_to(ROOT).parent for path in (ROOT / "qr_core").rglob("__init__.py"))
    there = sorted(".".join(path.parts) for path in inits if "training" not in path.parts)
    assert ast.literal_eval(listed) == [*there, "langchain_qrhead", "llama_index.postprocessor.qrhead"]


@pytest.mark.parametrize("path", sorted(UNIT.rglob("test_*.py")), ids=lambda path: path.relative_to(UNIT).as_posix())
def test_tests_mirror_the_packages(path):
    """`tests/unit/<package>/test_<module>.py`, or `test_<module>_<concept>.py` where one file would be too long."""
    subject = path.stem.removeprefix("test_")
    package = ROOT / "qr_core" / path.parent.relative_to(UNIT)
    if path.parent == UNIT and (subject in ACROSS or (package / subject).is_dir()):
        return
    modules = {found.stem for found in package.glob("*.py")} | {found.name for found in package.iterdir()}
    assert any(f"{subject}_".startswith(f"{module}_") for module in modules), f"no module of {package.name} is meant"


def test_every_package_has_tests(found):
    packages = {name for name in found.packages if name and (ROOT / "qr_core" / name).is_dir()} - ELSEWHERE
    tested = {path.relative_to(UNIT).parts[0] for path in UNIT.rglob("test_*.py")}
    assert {name for name in packages if not {name, f"test_{name}.py"} & tested} == set()


def test_every_file_says_what_it_is():
    silent = [
        path.relative_to(ROOT).as_posix()
        for source in structure.SOURCES
        for path in (ROOT / source).rglob("*.py")
        if not ast.get_docstring(ast.parse(path.read_text("utf-8")))
    ]
    assert silent == []


@pytest.fixture
def checkout(tmp_path):
    """A package whose figures are known."""
    sources = {
        "low/__init__.py": "",
        "low/a.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from qr_core.high import C\n",
        "low/b.py": "def late():\n    from qr_core.high import C\n",
        "high/__init__.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from qr_core.high.c import C\n",
        "high/c.py": "import qr_core.low.a\nfrom qr_core.high import d\nclass C: ...\n",
        "high/d.py": "from qr_core.high.c import C\n" + "\n" * 300,
        "__init__.py": "def f(self, a, b, c, d, e, /, f, g, h, *i, j, k, l, **m): ...\n",
    }
    for name, text in sources.items():
        path = tmp_path / "qr_core" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_what_is_counted(checkout):
    found = structure.inspect(checkout, [["high"], ["low"]])
    assert found.upward == [("qr_core.low.b", "qr_core.high.c")]  # behind the name that the package exports
    assert structure.cycles(found.modules) == [["qr_core.high.c", "qr_core.high.d"]]
    assert structure.cycles(found.packages) == [["high", "low"]]
    assert structure.levels(found.modules) == 3  # b, then c with d, then a
    assert found.long_signatures == [("qr_core/__init__.py:1 f", 13)]
    assert found.long_files == [("qr_core/high/d.py", 301)]
    assert found.flat == ["__init__.py"]


def test_a_module_may_be_said_to_lie_elsewhere(checkout):
    found = structure.inspect(checkout, [["high"], ["low"]], {"qr_core.low.b": "high"})
    assert found.upward == []


def test_the_script_prints_figures_and_places(checkout):
    command = [sys.executable, ROOT / "tools" / "structure.py", "--root", checkout]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "    1  files directly in qr_core/\n    3  import levels of modules\n" in done.stdout
    assert "13 parameters: qr_core/__init__.py:1 f" in done.stdout
