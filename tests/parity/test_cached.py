"""Cached, batched and chunked readings equal eager attention, on every architecture claimed and on the golden cases."""

from __future__ import annotations

import pytest
import torch

from qr_core import QRScorer
from qr_core.attention import capture, layers, prefill, query_pass
from qr_core.attention.loaded import facts_of
from qr_core.cache.reads import SHARED, ReadCache
from qr_core.model import loading as models
from qr_core.model.verify import packs_queries
from qr_core.reading import joint, layout
from tests.architectures import FAMILIES, WINDOW
from tests.helpers import DOCUMENTS, QUERY, documents_of, eager_masses, eager_model, every_head, golden_scorer, in_order
from tests.parity.test_golden import CASES, REGULAR

QUERIES = [
    QUERY,
    "Who?",
    "How many arches does the stone bridge across the Ellin have, and who was it built by?",
    "Rye",
]


@pytest.fixture(scope="module")
def prepared(save_tiny):
    """A scorer over every head of a family, its prompts, and the masses by eager attention, made once."""
    made = {}

    def get(family: str):
        if family not in made:
            folder = save_tiny(FAMILIES[family]())
            scorer = QRScorer.from_pretrained(folder, every_head(folder), template="plain", device="cpu")
            asked = [scorer.prompt(query, DOCUMENTS) for query in QUERIES]
            prompts = [*(one.query for one in asked), asked[0].references[0]]
            # a model each: dynamic NTK remembers the longest prompt
            masses = [eager_masses(eager_model(folder), p.ids, p.query_start).flatten(0, 1) for p in prompts]
            made[family] = (scorer, asked, masses[:-1], masses[-1])
        return made[family]

    return get


@pytest.fixture(autouse=True)
def _beyond_windows(monkeypatch):
    monkeypatch.setattr(layers, "check_windows", lambda *_: None)  # masses are compared beyond the window too


@pytest.fixture
def passes(monkeypatch):
    """How many prefixes were encoded, and how many suffixes each pass over one held."""
    counted = {"prefill": 0, "passes": []}
    fill, run = prefill.prefill, query_pass.query_passes

    def filled(*args, **options):
        counted["prefill"] += 1
        return fill(*args, **options)

    def passed(model, prefix, suffixes, *args):
        counted["passes"].append(len(suffixes))
        return run(model, prefix, suffixes, *args)

    monkeypatch.setattr(joint, "prefill", filled)
    monkeypatch.setattr(layout, "query_passes", passed)
    return counted


ONE_REGIME = [family for family in FAMILIES if family not in ("llama-dynamic-rope", "phi3-straddling")]


@pytest.mark.parametrize("chunk", [None, 7], ids=["whole", "chunked"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_path_equals_eager(prepared, passes, monkeypatch, family, chunk):
    """Every mask, window, sink, soft cap and RoPE kind: first query, further queries, and all of them in one pass."""
    scorer, asked, expected, null = prepared(family)
    if chunk:
        monkeypatch.setattr(prefill, "chunk_rows", lambda *_: chunk)
    cache = ReadCache()
    cached = [scorer.masses([one], cache)[0] for one in asked]
    one_regime = family in ONE_REGIME
    if one_regime:
        assert passes["prefill"] == 1
        assert passes["passes"] == [1] * (len(asked) + 1)  # `N/A` once
    monkeypatch.setattr(prefill, "chunk_rows", lambda *_: 10_000)
    passes["passes"].clear()
    together = scorer.masses(asked, cache)
    if one_regime:
        assert passes == {"prefill": 1, "passes": [len(asked)]}
    assert facts_of(scorer.model.at_depth(0)).packs
    for one, other, masses, prompts in zip(cached, together, expected, asked, strict=True):
        assert len(prompts.query.ids) > 4 * WINDOW
        for found in (one, other):
            assert found.calibrated
            if one_regime or len(prompts.query.ids) >= len(
                prompts.references[0].ids
            ):  # the longer prompt of the two decides the regime
                assert float((found.raw - masses).abs().max()) < 1e-5
            if one_regime:
                assert float((found.mass - (masses - null)).abs().max()) < 2e-5
        assert float((one.raw - other.raw).abs().max()) < 1e-6


@pytest.mark.parametrize("family", FAMILIES)
def test_a_query_among_others_ranks_as_alone(prepared, family):
    scorer, *_ = prepared(family)
    many = scorer.rank_many([(query, DOCUMENTS) for query in QUERIES])
    for query, ranking in zip(QUERIES, many, strict=True):
        SHARED.clear()
        alone = in_order(scorer.rank(query, DOCUMENTS))
        assert in_order(ranking) == pytest.approx(alone, abs=1e-5)  # sums over all heads and tokens


@pytest.mark.parametrize(("family", "name"), REGULAR)
def test_golden_cases_from_the_cache_and_among_others(golden, family, name):
    case = CASES[family][name]
    scorer = golden_scorer(golden[family], case)
    documents = documents_of(case)
    expected = pytest.approx(case["scores_in_order"], abs=1e-5)
    scorer.rank("Another question?", documents)
    assert in_order(scorer.rank(case["query"], documents)) == expected
    many = scorer.rank_many(
        [(query, documents) for query in ("A?", case["query"], "Another, longer question than that?")]
    )
    assert in_order(many[1]) == expected


def broken_mask(batch_size, q_length, kv_length, **options):
    """Lets suffixes see each other."""
    return capture.eager_mask(batch_size, q_length, kv_length, **options)


@pytest.mark.parametrize("family", ["llama", "mistral", "gpt2"])
def test_suffixes_that_see_each_other_are_noticed(prepared, family):
    """By these tests, and by the self-check at load, after which queries run one by one."""
    scorer, asked, expected, _ = prepared(family)
    folder = scorer.source.name
    capture.AttentionMaskInterface.register(capture.ATTENTION_NAME, broken_mask)
    try:
        found = scorer.masses(asked)
        assert max(float((one.raw - masses).abs().max()) for one, masses in zip(found, expected, strict=True)) > 1e-3
        careful = QRScorer.from_pretrained(folder, every_head(folder), template="plain", device="cpu", dtype="float64")
        careful.model.source = models.replace(careful.source, dtype="float32")
        found = careful.masses(asked)
        assert not facts_of(careful.model.at_depth(0)).packs
        assert max(float((one.raw - masses).abs().max()) for one, masses in zip(found, expected, strict=True)) < 1e-5
    finally:
        capture.AttentionMaskInterface.register(capture.ATTENTION_NAME, capture.capture_mask)


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2", "phi3-above"])
def test_positions_that_run_on_are_noticed(prepared, family, monkeypatch):
    """A model that counted positions by itself would give the second suffix those after the first."""
    scorer, asked, expected, _ = prepared(family)
    scorer.masses([asked[0]])
    run = query_pass.query_pass
    monkeypatch.setattr(
        query_pass, "query_pass", lambda m, prefix, ids, captured, _=None: run(m, prefix, ids, captured)
    )
    found = scorer.masses(asked)
    assert max(float((one.raw - masses).abs().max()) for one, masses in zip(found, expected, strict=True)) > 1e-3
    with torch.inference_mode():
        assert not packs_queries(scorer.model.at_depth(0))


def test_half_precision_and_padding_free_passes(embedded):
    """The embedded model, in its own dtype: what is run together differs by rounding alone."""
    questions = [f"{query} ({number})" for number in range(3) for query in QUERIES]
    documents = DOCUMENTS * 8
    many = embedded.rank_many([(query, documents) for query in questions])
    for query, ranking in zip(questions, many, strict=True):
        alone = embedded.rank(query, documents)
        assert in_order(ranking) == pytest.approx(in_order(alone), abs=2e-3)
