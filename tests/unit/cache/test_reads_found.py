"""What was read is found again: by further queries, other scorers and adapters, in its partition only."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qr_core import Document, cache_partition
from qr_core.cache.reads import SHARED
from qr_core.chain import ChainOptions
from qr_core.partition import current_partition
from qr_core.prompts.joint import PromptBuilder
from tests.helpers import DOCUMENTS, QUERY, in_order
from tests.unit.cache.readers import HEADS, OTHER, make


def test_a_further_query_reads_no_document_again(tiny, uncached, fills):
    expected = [uncached.rank(query, DOCUMENTS) for query in (QUERY, OTHER)]
    fills.clear()
    assert [tiny.rank(query, DOCUMENTS) for query in (QUERY, OTHER)] == expected
    assert tiny.rank(QUERY, DOCUMENTS) == expected[0]
    assert len(fills) == 1
    tiny.rank(QUERY, DOCUMENTS[::-1])
    assert len(fills) == 2


def test_prune_and_tasks_find_it_too(tiny, uncached, fills):
    text = " ".join(document.text for document in DOCUMENTS)
    first, second = (uncached.prune(query, text, top_k=1) for query in (QUERY, OTHER))
    fills.clear()
    assert tiny.prune(QUERY, text, top_k=1) == first
    assert asyncio.run(tiny.aprune(OTHER, text, top_k=1)) == second
    assert asyncio.run(tiny.aprune(OTHER, text, top_k=1, unit="paragraph")).texts
    assert len(fills) == 1
    passages = [Document(unit) for unit in (text,)]
    assert asyncio.run(tiny.arank(QUERY, passages)) == uncached.rank(QUERY, passages)


def test_scorers_of_one_model_share(tiny, fills):
    """Other objects, other heads, other calibration; a deeper reading serves shallower heads."""
    deep, shallow = make("4-3,4-1", calibrate=False), make("1-1,0-3")
    plain = [make(heads, cache_bytes=0, **more).rank(OTHER, DOCUMENTS) for heads, more in (
        ("4-3,4-1", {"calibrate": False}), ("1-1,0-3", {}), (HEADS, {}),
    )]  # fmt: skip
    fills.clear()
    assert deep.rank(OTHER, DOCUMENTS) == plain[0]
    assert shallow.rank(OTHER, DOCUMENTS) == plain[1]
    assert tiny.rank(OTHER, DOCUMENTS) == plain[2]
    assert make().rank(OTHER, DOCUMENTS) == plain[2]
    assert len(fills) == 1


def test_a_shallow_reading_does_not_serve_deeper_heads(tiny, fills):
    tiny.rank(QUERY, DOCUMENTS)  # the copy in memory is deep enough for all
    SHARED.clear()
    fills.clear()
    shallow = make("1-1")
    assert shallow.rank(QUERY, DOCUMENTS) == make("1-1", cache_bytes=0).rank(QUERY, DOCUMENTS)
    assert tiny.rank(QUERY, DOCUMENTS) == make(cache_bytes=0).rank(QUERY, DOCUMENTS)
    assert len(fills) == 4
    shallow.rank(QUERY, DOCUMENTS)
    tiny.rank(QUERY, DOCUMENTS)
    assert len(fills) == 4


@pytest.mark.parametrize(("layout", "readings"), [("joint", 1), ("independent", 2)])  # 2: instruction and documents
def test_both_adapters_find_what_the_other_read(fills, layout, readings):
    pytest.importorskip("langchain_core")
    pytest.importorskip("llama_index.core")
    from langchain_core.documents import Document as LangChainDocument
    from langchain_qrhead import QRHeadCompressor
    from llama_index.core.schema import NodeWithScore, TextNode
    from llama_index.postprocessor.qrhead import QRHeadRerank

    texts = [document.text for document in DOCUMENTS]
    options = {"model": "embedded-fast", "device": "cpu", "layout": layout}
    compressor, rerank = QRHeadCompressor(**options), QRHeadRerank(**options)
    compressor.compress_documents([LangChainDocument(text) for text in texts], QUERY)
    rerank.postprocess_nodes([NodeWithScore(node=TextNode(text=text)) for text in texts], query_str=OTHER)
    assert len(fills) == readings
    ChainOptions(**options).select(QUERY, texts)
    assert len(fills) == readings


def test_partitions_find_nothing_of_each_other(tiny, fills):
    expected = tiny.rank(QUERY, DOCUMENTS)
    for name, count in (("a", 2), ("b", 3), ("a", 3), (None, 3)):
        with cache_partition(name):
            assert tiny.rank(QUERY, DOCUMENTS) == expected
            assert asyncio.run(tiny.arank(QUERY, DOCUMENTS)) == expected
        assert len(fills) == count
    tokenised = []
    build = PromptBuilder.build

    def counted(*args):
        tokenised.append(args)
        return build(*args)

    many = DOCUMENTS * 4
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(PromptBuilder, "build", counted)
        for name in ("a", "b", "a", "b"):
            with cache_partition(name):
                tiny.rank(OTHER, many)
    assert len(tokenised) == 2


def test_rankings_taken_elsewhere_belong_to_the_partition_they_were_asked_in(tiny, fills):
    with cache_partition("a"):
        rankings = tiny.rank_each([(QUERY, DOCUMENTS)])
    with cache_partition("b"):
        next(rankings)
        tiny.rank(QUERY, DOCUMENTS)
    with cache_partition("a"):
        tiny.rank(QUERY, DOCUMENTS)
    tiny.rank(QUERY, DOCUMENTS)
    assert len(fills) == 3
    assert list(rankings) == []


def test_partitions_end_with_their_block_and_nest():
    with cache_partition("a"):
        with cache_partition("b"), pytest.raises(ZeroDivisionError), cache_partition("c"):
            1 / 0  # noqa: B018
        assert current_partition() == "a"
    assert current_partition() is None


CALLS = st.lists(
    st.tuples(
        st.sampled_from(["rank", "rank_many", "prune", "reversed"]),
        st.permutations(range(3)).flatmap(lambda order: st.integers(1, 3).map(lambda n: tuple(order[:n]))),
        st.sampled_from([QUERY, OTHER, "N/A", "rye", "When? " * 20]),
        st.sampled_from([None, "a"]),
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=25, deadline=None)
@given(CALLS)
def test_any_calls_give_what_they_give_without_a_cache(tiny, uncached, calls):
    for kind, places, query, partition in calls:
        documents = [DOCUMENTS[place] for place in places]
        with cache_partition(partition):
            if kind == "prune":
                assert tiny.prune(query, documents, top_k=2) == uncached.prune(query, documents, top_k=2)
            elif kind == "rank_many":
                found = tiny.rank_many([(query, documents), (OTHER, documents), (QUERY, documents)])
                alone = [uncached.rank(each, documents) for each in (query, OTHER, QUERY)]
                for one, other in zip(found, alone, strict=True):
                    assert in_order(one) == pytest.approx(in_order(other), abs=1e-6)
                    assert one.calibrated == other.calibrated
            else:
                order = "reversed" if kind == "reversed" else "given"
                assert tiny.rank(query, documents, order=order) == uncached.rank(query, documents, order=order)
