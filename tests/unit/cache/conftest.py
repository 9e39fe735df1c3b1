"""Fixtures of the tests of caches: scorers with and without one, and what they have read since."""

from __future__ import annotations

import pytest

from qr_core import QRScorer
from qr_core.attention import prefill
from qr_core.cache.documents import DocumentCache
from qr_core.reading import independent, joint
from tests.helpers import DOCUMENTS, QUERY, in_order
from tests.unit.cache.encoded import scorer_of
from tests.unit.cache.readers import make


@pytest.fixture(scope="module")
def tiny() -> QRScorer:
    return make()


@pytest.fixture(scope="module")
def uncached() -> QRScorer:
    return make(cache_bytes=0)


@pytest.fixture
def fills(monkeypatch):
    """Lengths of the prefixes that were read, as they are."""
    read = []

    def counted(model, input_ids, *args, **options):
        read.append(input_ids.shape[-1])
        return prefill.prefill(model, input_ids, *args, **options)

    monkeypatch.setattr(joint, "prefill", counted)
    monkeypatch.setattr(independent, "prefill", counted)
    return read


@pytest.fixture(scope="module")
def expected() -> list[float]:
    return in_order(scorer_of(DocumentCache(0)).rank(QUERY, DOCUMENTS))


@pytest.fixture
def counted(monkeypatch):
    """Documents encoded since: tokens of every forward pass of a scorer that are no query's."""

    def count(scorer: QRScorer) -> list[tuple[int, int]]:
        scorer.rank(QUERY, ["Something else."])  # loads, and makes the trials
        model = scorer.reader.model.at_depth(scorer.heads.deepest)
        shapes: list[tuple[int, int]] = []
        forward = model.forward

        def noted(*args, **kwargs):
            shapes.append(tuple(kwargs["input_ids"].shape))
            return forward(*args, **kwargs)

        monkeypatch.setattr(model, "forward", noted)
        return shapes

    return count
