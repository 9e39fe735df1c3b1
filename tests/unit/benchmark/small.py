"""What the tests of the benchmark measure."""

from __future__ import annotations

from dataclasses import replace

from qr_core.benchmark.plan import Shape, Subject
from qr_core.options import ScorerOptions
from qr_core.types import Layout

SMALL = Subject(shape=Shape(layers=3, hidden=128), deepest=1, options=ScorerOptions(device="cpu", dtype="float32"))
QUICK = ("plain", "published", "joint", "second", "independent-cold", "independent-warm")
"""Variants without a hundred queries or another model."""


def in_layout(layout: Layout) -> Subject:
    return replace(SMALL, options=SMALL.options.changed(layout=layout))
