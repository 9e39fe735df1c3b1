"""SECURITY.md: every promise names tests, and these exist. Knows nothing of what the tests show."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LINES = (ROOT / "SECURITY.md").read_text(encoding="utf-8").splitlines()
PROMISING = ("## What is safe to open", "## The server", "## What is promised")
"""Sections whose rows, items and paragraphs are promises."""
TEST = re.compile(r"`(tests/[^`]+)`")


def promises(lines: list[str]) -> list[str]:
    """Table rows, list items and paragraphs of the promising sections, each as one line."""
    found: list[str] = []
    inside = begun = False
    for line in lines:
        if line.startswith("#"):
            inside, begun = line in PROMISING, False
        elif not inside or not line.strip() or re.match(r"\|[-| ]+$", line):
            begun = False
        elif begun and not line.startswith(("|", "- ")):
            found[-1] += " " + line.strip()
        else:
            found.append(line)
            begun = True
    heads = {after for before, after in zip(lines[1:], lines, strict=False) if re.match(r"\|[-| ]+$", before)}
    return [promise for promise in found if promise not in heads]


def missing(name: str) -> bool:
    """Whether there is no such test: a folder or file of tests, or `file::test`."""
    path, _, test = name.partition("::")
    place = ROOT / path
    if place.is_dir():
        return not any(place.rglob("test_*.py"))
    if not place.is_file():
        return True
    tree = ast.parse(place.read_text(encoding="utf-8"))
    return bool(test) and test not in {part.name for part in ast.walk(tree) if isinstance(part, ast.FunctionDef)}


@pytest.mark.parametrize("promise", promises(LINES), ids=lambda promise: promise[:60])
def test_every_promise_names_a_test(promise):
    assert TEST.search(promise), f"SECURITY.md promises this without a test: {promise}"


def test_the_tests_that_are_named_exist():
    named = TEST.findall("\n".join(LINES))
    assert named
    assert not [name for name in named if missing(name)]


def test_rows_items_and_paragraphs_are_promises():
    lines = ["## The server", "", "| a | b |", "|---|---|", "| row | `tests/x.py` |", "", "- item", "  goes on", "text"]
    assert promises([*lines, "# Other", "none"]) == ["| row | `tests/x.py` |", "- item goes on text"]
    assert missing("tests/none.py")
    assert missing("tests/test_security.py::none")
    assert not missing("tests/unit/files/")
