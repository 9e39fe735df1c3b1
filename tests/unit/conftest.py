"""The scorer that several files of this folder ask."""

from __future__ import annotations

import pytest

from qr_core import QRScorer
from tests.helpers import GOLDEN


@pytest.fixture(scope="module")
def tiny() -> QRScorer:
    """A tiny Llama with three heads; modules that need another define their own."""
    return QRScorer.from_pretrained(GOLDEN / "tiny-llama", "2-1,4-3,3-5", template="plain", device="cpu")
