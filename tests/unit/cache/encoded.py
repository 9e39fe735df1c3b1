"""Scorers, entries and keys for the tests of documents that are encoded by themselves."""

from __future__ import annotations

import torch

from qr_core import Document, QRScorer
from qr_core.attention.prefix import Prefix
from qr_core.cache.documents import DocumentCache, Keys
from tests.helpers import GOLDEN

OPTIONS = {"template": "plain", "device": "cpu", "dtype": "float32", "layout": "independent", "cache_bytes": 0}


HEADS = "1-1,2-2"


OTHER = Document("Ferries to the island leave at noon and at six.", "Ferries")


def scorer_of(cache=None, model="tiny-llama", heads=HEADS, **options) -> QRScorer:
    kept = cache if isinstance(cache, DocumentCache) else DocumentCache(folder=cache)
    return QRScorer.from_pretrained(GOLDEN / model, heads, document_cache=kept, **OPTIONS | options)


def entry(size: int = 4, layers: int = 2, value: float = 1.0) -> Prefix:
    made = tuple(torch.full((1, 2, size, 8), float(value + layer)) for layer in range(layers))
    return Prefix(made, tuple(-tensor for tensor in made))


def key_of(*ids: int) -> str:
    return Keys("independent", "model", 1, [1, 2], None, lasting=True).of(ids)
