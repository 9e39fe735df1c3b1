"""Peak memory: it grows with what is held, and can count anew."""

from __future__ import annotations

import mmap
import sys
import time
from pathlib import Path

import pytest

from qr_core.parallel import usage

BLOCK = 64 * 2**20
needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")


@needs_proc
def test_the_peak_counts_from_the_restart():
    before = usage.restart_peak("cpu")
    held = mmap.mmap(-1, BLOCK)  # pages of its own: the heap may have so much to spare that it does not grow
    held.write(b"1" * BLOCK)
    first = usage.peak("cpu")
    assert first - before > 0.9 * BLOCK
    assert usage.resident() > before
    held.close()
    lowest = first
    for _ in range(20):  # the system may count what was given back a little later
        usage.restart_peak("cpu")
        lowest = min(lowest, usage.peak("cpu"))
        if lowest < first - 0.5 * BLOCK:
            break
        time.sleep(0.05)
    assert lowest < first - 0.5 * BLOCK


def test_without_proc_the_peak_is_that_of_the_whole_run(monkeypatch):
    pytest.importorskip("resource")

    def missing(*_):
        raise FileNotFoundError("/proc/self/status")

    monkeypatch.setattr(usage, "_status", missing)
    monkeypatch.setattr(usage.Path, "write_text", missing)
    assert usage.restart_peak("cpu") == usage.peak("cpu") > 2**20
    assert usage.resident() is None
    monkeypatch.setitem(sys.modules, "resource", None)  # as on Windows
    assert usage.peak("cpu") is None
