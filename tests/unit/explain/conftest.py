"""Fixtures: one explanation for all tests of the room."""

from __future__ import annotations

import pytest

from qr_core.explain import Explanation
from tests.unit.explain.pages import DOCUMENTS, QUERY


@pytest.fixture(scope="module")
def found(embedded) -> Explanation:
    return embedded.explain(QUERY, DOCUMENTS)
