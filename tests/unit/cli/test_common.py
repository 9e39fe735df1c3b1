"""What commands share: progress bars."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from qr_core.cli import common as cli_common


def test_a_progress_bar_appears_for_long_input_only():
    shown = {}
    for total in (100, 50_000):
        screen = io.StringIO()
        console = Console(file=screen, force_terminal=True, width=100)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(cli_common, "err", console)
            with cli_common.progress("encoding", tokens=True) as progress:
                progress(total // 2, total)
        shown[total] = screen.getvalue()
    assert "25,000 of about 50,000 tokens" in shown[50_000]
    assert "tokens" not in shown[100]


def test_a_progress_bar_of_things_counts_them(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(cli_common, "err", Console(file=screen, force_terminal=True, width=100))
    with cli_common.progress("jobs") as progress:
        progress(2, 5)
    assert "jobs" in screen.getvalue()
    assert "2/5" in screen.getvalue()
