"""Reports as a picture."""

from __future__ import annotations

from qr_core.benchmark import plot


def test_plot(found):
    assert plot.png(found).startswith(b"\x89PNG")
    alone = {**found, "lengths": found["lengths"][:1], "depths": [], "documents": []}
    assert plot.png(alone).startswith(b"\x89PNG")
