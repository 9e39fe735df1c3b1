"""`qrhead` as a whole: its commands, its version, unknown options."""

from __future__ import annotations

import logging
import os

import pytest

from qr_core.cli.main import KERNEL_CACHES, KERNELS, _SafeFormatter


def test_an_unknown_option_is_status_2(run):
    assert run("rank", "--quary", "q")[0] == 2


def test_version(run):
    from qr_core import __version__

    assert run("--version")[1] == f"qrhead {__version__}\n"


def test_rank_comes_first(run):
    status, out, _ = run("--help")
    assert status == 0
    listed = [line.split()[0] for line in out.split("Commands:")[1].strip().splitlines()]
    assert listed[:9] == ["rank", "prune", "ask", "explain", "serve", "rank-many", "detect", "eval", "bench"]
    assert set(listed[9:]) == {"heads", "cache", "demo"}


def test_logs_cannot_steer_the_terminal():
    record = logging.LogRecord("m", logging.WARNING, "f", 1, "model %s", ("a\x1b]0;t\x07\x9b",), None)
    assert _SafeFormatter("%(message)s").format(record) == "model a]0;t"


def test_an_error_of_the_system_is_one_line(run, monkeypatch):
    def fails(*_):
        raise PermissionError(13, "Permission denied", "/some/file")

    monkeypatch.setattr("qr_core.heads.sets.HeadSet.load", fails)
    status, _, err = run("heads", "show", "a/b")
    assert (status, err) == (2, "qrhead: /some/file: Permission denied\n")


@pytest.mark.parametrize(
    "words", [["rank", "--layout", "{}"], ["rank", "--{}"], ["rank", "--query", "q", "{}"], ["{}"]]
)
def test_a_usage_error_cannot_steer_the_terminal(run, words):
    status, out, err = run(*(word.format("\x1b[31mx\x9b\u202e") for word in words))
    assert status == 2
    assert "31mx" in err
    assert not set(out + err) & set("\x1b\x9b\u202e")


def test_a_traceback_cannot_steer_the_terminal(run, monkeypatch):
    def fails(*_):
        raise RuntimeError("text \x1b]0;t\x07\x9b\u202e of a document")

    monkeypatch.setattr("qr_core.heads.sets.HeadSet.load", fails)
    status, _, err = run("heads", "show", "a/b")
    assert status == 1
    assert err.startswith("Traceback ")
    assert err.endswith("RuntimeError: text ]0;t of a document\n")


def test_kernels_of_few_shapes_are_kept_unless_the_user_says(run, monkeypatch):
    first, second = KERNEL_CACHES
    monkeypatch.setenv(first, "7")
    monkeypatch.setenv(second, "8")
    monkeypatch.delenv(second)
    assert run("--version")[0] == 0
    assert (os.environ[first], os.environ[second]) == ("7", KERNELS)
