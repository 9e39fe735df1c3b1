"""An explanation in a terminal."""

from __future__ import annotations

from tests.unit.explain.pages import printed


def test_the_terminal_gets_no_control_characters(embedded):
    explained = embedded.explain("refund", ["\x1b[31m refund \x1b[0m \u202eevil [bold]refund[/bold]", "other"])
    text = printed(explained)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "bold]refund[/bold" in text
