"""Tables for a terminal and as Markdown, and figures."""

from __future__ import annotations

import io
import sys

import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from qr_core.display import figure, markdown_table, png, table
from qr_core.errors import InputError


def test_a_table_aligns_its_numbers_on_the_right():
    rows = table("system", "nDCG@10")
    rows.add_row("qr", "0.5")
    rows.add_row("everything", "0.25")
    console = Console(file=io.StringIO(), width=60)
    console.print(rows)
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
    assert lines == ["system      nDCG@10", "qr              0.5", "everything     0.25"]


def test_markdown_cells_are_text_only():
    lines = markdown_table(["system", "a|b"], [["<b>&", "x\ny"], ["[l](u)", 3]])
    page = MarkdownIt("commonmark", {"html": True}).enable("table").render("\n".join(lines))
    assert page.count("<tr>") == 3
    assert page.count("<td") == 4
    assert "<b>" not in page
    assert "<a" not in page
    assert "a|b" in page


def test_a_figure_becomes_a_picture_without_a_screen():
    drawn = figure(2, 1)
    drawn.subplots().plot([1, 2])
    assert png(drawn).startswith(b"\x89PNG")


def test_a_missing_matplotlib_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(InputError, match=r"pip install 'qrhead\[eval\]'"):
        figure()
