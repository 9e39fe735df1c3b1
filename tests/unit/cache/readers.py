"""Scorers, and owners of what is kept, for the tests of what was read."""

from __future__ import annotations

from qr_core import QRScorer
from tests.helpers import GOLDEN

HEADS = "2-1,4-3,3-5"


OTHER = "Who built the stone bridge?"


def make(heads: str = HEADS, **options) -> QRScorer:
    return QRScorer.from_pretrained(GOLDEN / "tiny-llama", heads, template="plain", device="cpu", **options)


class Owner:
    pass
