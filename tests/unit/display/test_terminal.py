"""Untrusted text and rankings in a terminal."""

from __future__ import annotations

import io
import re

from rich.console import Console
from rich.text import Text

from qr_core.display.tables import table
from qr_core.display.terminal import SafeConsole, plain, safe_lines, show_ranking
from qr_core.types import Document, Hit, Ranking


def test_terminal_text_is_stripped_of_controls():
    assert plain("a\x1b[31mred\x07\u202eevil\u0000\n\tnext [bold]x[/bold]") == "a[31mredevil next [bold]x[/bold]"
    assert plain("x" * 50, 10) == "x" * 9 + "…"


def test_lines_and_tabs_may_stay():
    assert safe_lines("a\n\tb\x1b[0m\u202ec\r\n") == "a\n\tb[0mc\n"


def shown(*hits: Hit) -> str:
    console = Console(file=io.StringIO(), width=80, highlight=False, markup=False)
    show_ranking(console, Ranking("q", hits, "m", "h"))
    return console.file.getvalue()


def test_a_ranking_names_each_document_and_shows_its_beginning():
    text = shown(
        Hit(1, 0.5, 0.9, Document("Five\x1b[31m days.", "Refunds", "kb-2")), Hit(0, 0.1, 0.1, Document("[red]x[/red]"))
    )
    first, second = text.splitlines()[1:]
    assert first.split() == ["1", "0.5000", "0.900", "kb-2", "Refunds:", "Five[31m", "days."]
    assert second.split() == ["2", "0.1000", "0.100", "#0", "[red]x[/red]"]


def test_a_ranking_without_a_relevant_document_says_so():
    assert "No document stands out" in shown(Hit(0, -0.5, 0.0, Document("x")))
    assert "No document stands out" not in shown()


def test_nothing_that_is_printed_steers_the_terminal():
    """Neither strings nor cells, whatever they came from; the console's own styles stay."""
    screen = io.StringIO()
    console = SafeConsole(file=screen, force_terminal=True, color_system="standard", width=80, highlight=False)
    shown = table("model")
    shown.add_row("a\x1b[2Jb\x9b31m")
    for what in ("x\x1b]0;title\x07y\u202e", shown, Text("bold\x1b[5m", style="bold")):
        console.print(what)
    text = screen.getvalue()
    assert "\x1b[1m" in text
    assert set(re.findall(r"\x1b[^m]*m", text)) <= {"\x1b[1m", "\x1b[0m"}
    assert not set(text) & set("\x9b\x07\u202e")
