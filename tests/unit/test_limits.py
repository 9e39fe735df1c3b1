"""Very many documents, very long ones, very long queries: a result, or one clear error soon."""

from __future__ import annotations

import time

import pytest
import torch

from qr_core import ContextLengthError, Document, QRScorer, capture
from tests.helpers import DOCUMENTS, GOLDEN, QUERY, captured_masses, in_order


@pytest.fixture(scope="module")
def tiny() -> QRScorer:
    return QRScorer.from_pretrained(GOLDEN / "tiny-llama", "2-1,4-3,3-5", template="plain", device="cpu")


def too_long(scorer: QRScorer, query: str, documents) -> str:
    """The error's message, after checking that no weights were touched to find it."""
    scorer.rank(QUERY, DOCUMENTS)
    clock = time.perf_counter()
    with pytest.raises(ContextLengthError) as caught:
        scorer.rank(query, documents)
    print(f"refused after {time.perf_counter() - clock:.2f} s: {caught.value}")
    return str(caught.value)


def test_ten_thousand_documents(embedded):
    message = too_long(embedded, QUERY, [f"Document number {i} about bridges." for i in range(10_000)])
    assert "10000 were given" in message


def test_ten_thousand_documents_that_fit(tiny):
    documents = ["x"] * 400 + DOCUMENTS
    assert sorted(hit.index for hit in tiny.rank(QUERY, documents)) == list(range(403))


def test_a_document_of_one_megabyte(embedded):
    assert "more than the context" in too_long(embedded, QUERY, ["word " * 200_000, "short"])


def test_a_query_of_ten_thousand_words(embedded):
    ranking = embedded.rank("bridge " * 10_000, DOCUMENTS)
    assert len(ranking) == 3


def test_a_query_over_the_context(embedded):
    assert "more than the context" in too_long(embedded, "word " * 40_000, ["short"])


def test_a_probe_in_blocks_reads_the_same(tiny, monkeypatch):
    whole, _ = captured_masses(tiny, "Who built the stone bridge across the Ellin? " * 8, DOCUMENTS)
    monkeypatch.setattr(capture, "BLOCK_BYTES", 1)
    blocks, _ = captured_masses(tiny, "Who built the stone bridge across the Ellin? " * 8, DOCUMENTS)
    assert torch.allclose(whole, blocks, atol=1e-6)


def test_control_strings_by_the_thousand_are_found_soon(tiny):
    """Finding control tokens in the callers' text costs no more than tokenising it."""
    documents = [Document("<|eot_id|>" * 5) for _ in range(1_000)]
    clock = time.perf_counter()
    prompt = tiny._prompts.build([QUERY], documents)[0]
    print(f"{len(prompt.ids)} tokens in {time.perf_counter() - clock:.2f} s")
    assert not tiny._prompts._control_ids & set(prompt.ids[1:])


def test_one_empty_document(tiny):
    assert in_order(tiny.rank(QUERY, [""])) != []
