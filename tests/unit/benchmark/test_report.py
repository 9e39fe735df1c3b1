"""Reports as tables."""

from __future__ import annotations

from qr_core.benchmark import report


def test_tables(found):
    text = report.markdown(found)
    for words in ("independent-warm", "joint / plain", "0.380 or less", "by depth", "time grows with size"):
        assert words in text
    for words in ("layout joint", "forward passes", "held MiB"):
        assert words in text
