"""Partitions: what one client has had encoded, another one does not find, in any cache."""

from __future__ import annotations

from qr_core import DocumentCache, QRScorer, cache_partition
from tests.helpers import DOCUMENTS, GOLDEN, QUERY


def encoded(scorer: QRScorer) -> int:
    """How many documents a ranking has to encode."""
    told: list[int] = []
    hook = scorer.model.at_depth(2).register_forward_pre_hook(
        lambda _, __, options: told.append(options["input_ids"].shape[0]), with_kwargs=True
    )
    scorer.rank(QUERY, DOCUMENTS)
    hook.remove()
    return sum(told[:-2])  # the last passes are those of the query and of `N/A`


def test_documents_encoded_independently_are_found_in_their_partition_only(tmp_path):
    scorer = QRScorer.from_pretrained(
        GOLDEN / "tiny-llama",
        "2-1",
        template="plain",
        device="cpu",
        layout="independent",
        cache_bytes=0,
        document_cache=DocumentCache(folder=tmp_path / "states"),
    )
    with cache_partition("a"):
        assert encoded(scorer) > len(DOCUMENTS)  # and the instruction
        assert encoded(scorer) == 0
    with cache_partition("b"):
        assert encoded(scorer) > len(DOCUMENTS)
    scorer.document_cache.clear()
    with cache_partition("a"):
        assert encoded(scorer) == 1  # the instruction: documents come from disk
    with cache_partition("c"):
        assert encoded(scorer) > len(DOCUMENTS)
