"""Untrusted text and rankings in a terminal."""

from __future__ import annotations

import io

from rich.console import Console

from qr_core.display.terminal import plain, safe_lines, show_ranking
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
