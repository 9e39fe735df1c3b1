"""What was read is kept: bounds, order, owners, partitions, threads, forks."""

from __future__ import annotations

import asyncio
import doctest
import gc
import os
import random
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qr_core import Document, InputError, QRScorer, cache_partition
from qr_core.attention import prefill
from qr_core.attention.prefix import Prefix
from qr_core.cache import reads as cache
from qr_core.cache.partition import current_partition
from qr_core.cache.reads import SHARED, ReadCache
from qr_core.chain import ChainOptions
from qr_core.model import shared
from qr_core.prompts.joint import PromptBuilder
from qr_core.ranking import survey
from qr_core.reading import independent, joint
from tests.helpers import DOCUMENTS, GOLDEN, QUERY, in_order

HEADS = "2-1,4-3,3-5"
OTHER = "Who built the stone bridge?"


def make(heads: str = HEADS, **options) -> QRScorer:
    return QRScorer.from_pretrained(GOLDEN / "tiny-llama", heads, template="plain", device="cpu", **options)


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


class Owner:
    pass


class TestReadCache:
    def test_least_recently_used_goes_first(self):
        one, other = Owner(), Owner()
        kept = ReadCache(30, spare_largest=False)
        for key, owner in (("a", one), ("b", other), ("c", one)):
            kept.put(owner, key, key.upper(), 10)
        assert kept.get(one, "a") == "A"
        kept.put(other, "d", "D", 10)
        assert [kept.get(owner, key) for owner, key in ((one, "a"), (other, "b"), (one, "c"), (other, "d"))] == [
            "A", None, "C", "D",
        ]  # fmt: skip
        assert (kept.bytes, len(kept)) == (30, 3)

    @settings(max_examples=100, deadline=None)
    @given(
        st.lists(st.tuples(st.integers(0, 1), st.integers(0, 8), st.integers(1, 60), st.booleans()), max_size=60),
        st.booleans(),
    )
    def test_it_is_a_bounded_queue(self, calls, spare_largest):
        """Against the plainest model of one."""
        owners = [Owner(), Owner()]
        kept, model = ReadCache(50, spare_largest), {}
        for number, (which, key, size, put) in enumerate(calls):
            if put:
                kept.put(owners[which], key, number, size)
                if size <= 50 or spare_largest:
                    model.pop((which, key), None)
                    model[which, key] = (number, size)
                    while sum(sizes := [s for _, s in model.values()]) - spare_largest * max(sizes) > 50:
                        del model[next(iter(model))]
            else:
                expected = model.pop((which, key), None)
                if expected is not None:
                    model[which, key] = expected
                assert kept.get(owners[which], key) == (expected and expected[0])
            assert kept.bytes == sum(s for _, s in model.values())
            assert len(kept) == len(model)

    def test_what_is_larger_than_the_bound(self):
        owner = Owner()
        shared, call = ReadCache(10, spare_largest=False), ReadCache(10)
        for kept in (shared, call):
            for key, size in (("small", 5), ("large", 11), ("smaller", 4)):
                kept.put(owner, key, key, size)
        assert [shared.get(owner, key) for key in ("small", "large", "smaller")] == ["small", None, "smaller"]
        assert [call.get(owner, key) for key in ("small", "large", "smaller")] == ["small", "large", "smaller"]
        call.put(owner, "larger", "larger", 12)  # the bound holds for all but one
        assert [call.get(owner, key) for key in ("small", "large", "smaller", "larger")] == [
            None, None, "smaller", "larger",
        ]  # fmt: skip

    def test_what_is_behind_is_asked_and_told(self):
        owner, behind = Owner(), ReadCache(20, spare_largest=False)
        behind.put(owner, "a", 1, 5)
        front = ReadCache(20, behind=behind)
        assert front.get(owner, "a") == 1
        front.put(owner, "b", 2, 5)
        front.put(owner, "c", 3, 50)
        assert [behind.get(owner, key) for key in "abc"] == [1, 2, None]
        behind.clear()
        assert front.get(owner, "c") == 3

    def test_what_is_kept_goes_with_its_owner(self):
        owner, other, kept = Owner(), Owner(), ReadCache(20)
        kept.put(owner, "a", 1, 5)
        kept.put(other, "a", 2, 5)
        del owner
        gc.collect()
        assert (kept.bytes, kept.get(other, "a")) == (5, 2)
        cache.forget(other)
        assert len(kept) == 0

    def test_equal_hashes_are_no_hit(self):
        class Colliding(str):
            def __hash__(self):
                return 1

        owner, kept = Owner(), ReadCache(20)
        kept.put(owner, Colliding("a"), 1, 5)
        assert kept.get(owner, Colliding("b")) is None
        assert kept.get(owner, Colliding("a")) == 1

    def test_many_threads(self):
        owners, kept = [Owner(), Owner()], ReadCache(200, spare_largest=False)

        def work(seed):
            rng = random.Random(seed)
            for _ in range(500):
                owner, key = rng.choice(owners), rng.randrange(40)
                found = kept.get(owner, key)
                assert found in (None, (id(owner), key))
                kept.put(owner, key, (id(owner), key), 1 + key)
                if rng.random() < 0.02:
                    kept.drop(owner)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
        assert kept.bytes == sum(kept.size for shelf in kept._shelves.values() for kept in shelf.kept.values()) <= 200


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
    options = {"device": "cpu", "layout": layout}
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


def test_a_cache_of_ones_own_and_none(fills):
    own, none = make(cache_bytes=10**7), make(cache_bytes=0)
    for scorer, count in ((own, 1), (own, 1), (none, 2), (none, 3)):
        scorer.rank(QUERY, DOCUMENTS)
        assert len(fills) == count
    assert len(SHARED) == 0
    assert own.with_heads(own.heads, "same").cache is own.cache
    make(cache_bytes=1000).rank(QUERY, DOCUMENTS)
    assert ChainOptions(device="cpu", cache_bytes=0).scorer.cache is None
    assert ChainOptions(device="cpu").scorer.cache is SHARED
    for wrong in (-1, 1.5, True, "1"):
        with pytest.raises(InputError, match="cache_bytes"):
            make(cache_bytes=wrong)


def test_one_call_reads_once_without_a_cache(uncached, fills, monkeypatch):
    """Over several groups of queries, and what is larger than any bound."""
    monkeypatch.setattr(survey, "QUERIES_AT_ONCE", 2)
    monkeypatch.setattr(ReadCache.__init__, "__defaults__", (100_000, True, None))
    documents = DOCUMENTS * 4
    jobs = [(query, documents) for query in (QUERY, OTHER, "Forty loaves?", "Rye", "Six?")]
    found = uncached.rank_many(jobs)
    assert len(fills) == 1
    for ranking, job in zip(found, jobs, strict=True):
        assert in_order(ranking) == pytest.approx(in_order(uncached.rank(*job)), abs=1e-6)


def test_the_bound_holds(fills):
    make().rank(QUERY, [*DOCUMENTS, "Number 0."])
    bound = 3 * SHARED.bytes
    own = make(cache_bytes=bound)
    for number in range(12):
        own.rank(QUERY, [*DOCUMENTS, f"Number {number}."])
        assert 0 < own.cache.bytes <= bound
    fills.clear()
    own.rank(OTHER, [*DOCUMENTS, "Number 11."])
    assert fills == []
    own.rank(OTHER, [*DOCUMENTS, "Number 0."])
    assert len(fills) == 1


def test_bytes_are_those_of_the_tensors(tiny):
    tiny.rank(QUERY, DOCUMENTS)
    shelf = SHARED._shelves[tiny.reader.model]
    prefixes = [kept for kept in shelf.kept.values() if isinstance(kept.value, Prefix)]
    nulls = [kept for kept in shelf.kept.values() if isinstance(kept.value, torch.Tensor)]
    assert (len(prefixes), len(nulls)) == (1, 1)
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in (
        *prefixes[0].value.keys, *prefixes[0].value.values
    )}  # fmt: skip
    assert sum(storages.values()) <= prefixes[0].size <= sum(storages.values()) + 16 * prefixes[0].value.length


def test_forgetting_a_model_drops_what_was_read_with_it(fills):
    own = make(cache_bytes=10**7)
    expected = own.rank(QUERY, DOCUMENTS)
    own.reader.model.forget()
    assert not [shelf for owner, shelf in own.cache._shelves.items() if isinstance(owner, shared.SharedModel)]
    assert own.rank(QUERY, DOCUMENTS) == expected
    assert len(fills) == 2


def test_a_model_nobody_uses_takes_its_readings_along(save_tiny):
    from tests.architectures import FAMILIES

    scorer = QRScorer.from_pretrained(save_tiny(FAMILIES["llama"]()), "1-1", template="plain", device="cpu")
    scorer.rank(QUERY, DOCUMENTS)
    assert SHARED.bytes > 0
    del scorer
    gc.collect()
    assert SHARED.bytes == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_starts_empty(tiny):
    expected = tiny.rank(QUERY, DOCUMENTS)
    with SHARED._lock, cache._all._lock:
        child = os.fork()
        if child == 0:  # pragma: no cover - runs in the child
            code = 1
            try:
                empty = SHARED.bytes == 0 and len(SHARED) == 0
                same = tiny.rank(QUERY, DOCUMENTS) == expected
                code = 0 if empty and same and SHARED.bytes > 0 else 2
            finally:
                os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert SHARED.bytes > 0


def test_eight_threads_and_a_small_cache(uncached):
    sets = [[*DOCUMENTS[: 1 + i % 3], Document(f"Number {i % 7} is here.")] for i in range(7)]
    jobs = [(f"What about number {i}?", sets[i % 7]) for i in range(40)]
    expected = [uncached.rank(*job) for job in jobs]
    small = make(cache_bytes=600_000)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda job: small.rank(*job), jobs)) == expected
    assert 0 < small.cache.bytes <= 600_000


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


def test_docstring_example():
    assert doctest.testmod(cache).failed == 0
