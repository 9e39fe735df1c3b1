"""Reader: the same algorithm under both layouts; what it shares between queries, and what it leaves alone."""

from __future__ import annotations

import pytest
import torch

from qr_core import Document, QRScorer
from qr_core.cache.documents import DocumentCache
from qr_core.cache.reads import ReadCache
from qr_core.reading import independent
from qr_core.reading.protocol import Reader
from tests.helpers import DOCUMENTS, GOLDEN, QUERY, in_order

LAYOUTS = ["joint", "independent"]
QUESTIONS = [f"What does the lamp of number {number} say?" for number in range(32)]
MANY = [Document(f"{document.text} Number {n}.", f"Title {n}") for n in range(34) for document in DOCUMENTS][:100]


def scorer_of(layout: str, **options) -> QRScorer:
    return QRScorer.from_pretrained(
        GOLDEN / "tiny-llama", "2-1,4-3,3-5", template="plain", device="cpu", layout=layout, **options
    )


class Passes:
    """How often a scorer's model runs."""

    def __init__(self, scorer: QRScorer) -> None:
        self.count = 0
        self.hook = scorer.model.at_depth(4).register_forward_pre_hook(self.add)

    def add(self, *_):
        self.count += 1


@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_is_a_reader(layout):
    reader: Reader = scorer_of(layout).reader
    asked = reader.build(QUERY, DOCUMENTS, ("N/A",))
    (reading,) = reader.read_many([asked])
    assert reading.raw.shape == reading.references[0].shape == (3, asked.query.query_start)
    assert reader.build("N/A", DOCUMENTS, ("N/A",)).references == ()


def test_warm_questions_share_passes_in_either_layout():
    """32 of them over the same documents take as many passes in one layout as in the other, and score as alone."""
    counts = []
    for layout in LAYOUTS:
        scorer = scorer_of(layout, cache_bytes=2**26)
        alone = [in_order(scorer.rank(question, DOCUMENTS)) for question in QUESTIONS]
        passes = Passes(scorer)
        together = scorer.rank_many([(question, DOCUMENTS) for question in QUESTIONS])
        counts.append(passes.count)
        for ranking, expected in zip(together, alone, strict=True):
            assert in_order(ranking) == pytest.approx(expected, abs=1e-6)
    assert counts[0] == counts[1] < 4


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_further_question_takes_one_pass(layout):
    scorer = scorer_of(layout, cache_bytes=2**26)
    scorer.rank(QUERY, DOCUMENTS)
    passes = Passes(scorer)
    scorer.rank("Who built the bridge?", DOCUMENTS)
    assert passes.count == 1  # that of `N/A` is kept


def test_keys_and_values_of_documents_are_held_once():
    scorer = scorer_of("independent", cache_bytes=2**28)
    scorer.rank(QUERY, MANY)
    held = scorer.document_cache.bytes + scorer.cache.bytes
    config = scorer.model.config
    token = 2 * 5 * config.num_key_value_heads * config.head_dim * 4  # keys and values, layers 0 to 4, float32
    asked = scorer.prompt(QUERY, MANY)
    assert asked.query.query_start * token <= held < 1.2 * asked.query.query_start * token


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_warm_ranking_walks_no_module_tree(layout, monkeypatch):
    scorer = scorer_of(layout, cache_bytes=2**26)
    expected = in_order(scorer.rank(QUERY, DOCUMENTS))
    for name in ("modules", "named_modules", "parameters", "named_parameters", "named_children"):

        def walked(*_, name=name, **__):
            pytest.fail(f"{name} was called")

        monkeypatch.setattr(torch.nn.Module, name, walked)
    assert in_order(scorer.rank(QUERY, DOCUMENTS)) == pytest.approx(expected, abs=1e-6)
    assert len(scorer.rank("Who built the bridge?", DOCUMENTS)) == len(DOCUMENTS)


def test_what_does_not_fit_the_document_cache_lasts_as_long_as_the_call(monkeypatch):
    """Documents are encoded once for all questions of a call, however small the caches are."""
    small = scorer_of("independent", cache_bytes=0, document_cache=DocumentCache(0))
    runs = []
    fill = independent.prefill
    monkeypatch.setattr(independent, "prefill", lambda *args, **more: runs.append(1) or fill(*args, **more))
    small.rank(QUERY, DOCUMENTS)
    once = len(runs)
    small.rank_many([(question, DOCUMENTS) for question in QUESTIONS * 2])  # more than are held at a time
    assert len(runs) == 2 * once


def test_masses_without_a_cache_leave_nothing_behind():
    scorer = scorer_of("joint")
    cache = ReadCache()
    asked = scorer.prompt(QUERY, DOCUMENTS)
    scorer.masses([asked])
    assert len(cache) == 0
