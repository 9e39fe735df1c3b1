"""Fixtures of the data sets."""

from __future__ import annotations

import pytest

from tests.unit.evaluation.data.samples import BOOKS, CLAIMS, save


@pytest.fixture
def books(tmp_path):
    save(tmp_path / "books.json.gz", BOOKS)
    save(tmp_path / "claims.json", CLAIMS)
    return tmp_path
