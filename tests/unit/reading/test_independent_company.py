"""What a document leaves behind does not depend on what was encoded beside it, nor scores on what was kept."""

from __future__ import annotations

import itertools

import pytest
import torch

from qr_core import Document, QRScorer
from qr_core.cache.documents import DocumentCache
from qr_core.prompts.independent import IndependentPrompt
from qr_core.reading import independent
from qr_core.reading.documentwise import LARGEST_STEP, padded_length
from tests.architectures import FAMILIES
from tests.helpers import GOLDEN, QUERY, in_order

LENGTHS = (1, 3, 9, 14, 15, 30, 31, 32, 33, 60, 90, 130)
DOCUMENTS = [Document(" ".join(f"word{n * 7 % 90}" for n in range(length))) for length in LENGTHS]


def scorer_of(model, dtype: str = "float32", **options) -> QRScorer:
    return QRScorer.from_pretrained(
        model, "1-1,2-2", template="plain", device="cpu", dtype=dtype, layout="independent", cache_bytes=0, **options
    )


def states(scorer: QRScorer, documents: list[Document]) -> dict[tuple[int, ...], list[torch.Tensor]]:
    """Keys and values of each document, by its tokens, as a ranking of all of them leaves them behind."""
    prompt = scorer.prompt(QUERY, documents).query
    assert isinstance(prompt, IndependentPrompt)
    kept: dict[tuple[int, ...], list[torch.Tensor]] = {}
    encode = independent.encode

    def seen(model, instruction, rows, *rest):
        found = encode(model, instruction, rows, *rest)
        kept.update({ids: [*found[key].keys, *found[key].values] for key, ids in rows.items()})
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(independent, "encode", seen)
        scorer.rank(QUERY, documents)
    return kept


def test_a_padded_length_depends_on_the_document_alone_and_wastes_little():
    for length in range(1, 3000):
        padded = padded_length(length)
        assert length <= padded < length + LARGEST_STEP
        assert padded_length(padded) == padded
        assert length < 17 or padded <= 1.25 * length
    assert padded_length(90, most=92) == 92
    assert padded_length(92, most=90) == 92  # a prompt that is too long is refused elsewhere
    assert len({padded_length(length) for length in range(64, 512)}) <= 18


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_states_are_the_same_to_the_last_bit_in_any_company(dtype):
    scorer = scorer_of(GOLDEN / "tiny-llama", dtype)
    together = states(scorer, DOCUMENTS)
    assert len(together) == len(DOCUMENTS)
    for company in ([DOCUMENTS[4]], DOCUMENTS[3:6], DOCUMENTS[::-2], DOCUMENTS[::3]):
        found = states(scorer, company)
        assert len(found) == len(company)
        for ids, tensors in found.items():
            assert all(torch.equal(one, other) for one, other in zip(tensors, together[ids], strict=True))


@pytest.mark.parametrize("family", ["qwen3", "olmo2", "gpt2"])
def test_scores_over_documents_that_were_read_before_are_those_of_a_first_call(family, save_tiny):
    folder = save_tiny(FAMILIES[family]())
    documents = DOCUMENTS[:10]
    expected = in_order(scorer_of(folder).rank(QUERY, documents))
    for first, second in itertools.permutations([documents[:4], documents[2:9], documents[5:6]], 2):
        warm = scorer_of(folder, document_cache=DocumentCache())
        for company in (first, second):
            warm.rank("Something else?", company)
        assert in_order(warm.rank(QUERY, documents)) == expected


def test_the_embedded_model_too(embedded):
    texts = [Document(f"Ferry {n} leaves the island at {n} o'clock. " * (1 + n % 9)) for n in range(24)]
    cold = QRScorer.from_pretrained(cache_bytes=0)
    expected = in_order(cold.rank(QUERY, texts))
    warm = QRScorer.from_pretrained(document_cache=DocumentCache())
    for n in (3, 1, 17):
        warm.rank("When?", texts[n:])
    assert in_order(warm.rank(QUERY, texts)) == expected
    assert warm.document_cache.hits > len(texts)


def test_documents_at_the_end_of_the_positions_are_padded_within_them(save_tiny):
    folder = save_tiny(FAMILIES["gpt2"]())
    scorer = scorer_of(folder)
    reach = scorer.context
    free = reach - scorer.prompt(QUERY, [Document("")]).query.reach
    words = next(n for n in itertools.count(free, -1) if scorer.lengths([Document("a " * n)])[0] <= free)
    longest = Document("a " * words)
    assert padded_length(scorer.lengths([longest])[0]) != scorer.lengths([longest])[0]
    assert len(scorer.rank(QUERY, [longest, *DOCUMENTS[:3]])) == 4
