"""What commands share: progress bars."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from qr_core.cli import common as cli_common
from qr_core.display.terminal import SafeConsole


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


@pytest.mark.parametrize(("name", "value"), [("TTY_COMPATIBLE", "0"), ("FORCE_COLOR", ""), ("NO_COLOR", "1")])
def test_a_terminal_gets_no_raw_escapes_whatever_the_environment_says(monkeypatch, capsys, name, value):
    monkeypatch.setenv(name, value)
    monkeypatch.setattr(cli_common, "out", SafeConsole(highlight=False, markup=False))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    cli_common.print_text("a\x1b[2Jb")
    cli_common.out.print("c\x1b[2Jd")
    assert capsys.readouterr().out == "a[2Jb\nc[2Jd\n"


def test_a_pipe_gets_the_text_with_lone_surrogates_replaced(capsys):
    cli_common.print_text("a\x07b\udc80")
    assert capsys.readouterr().out == "a\x07b\ufffd\n"
