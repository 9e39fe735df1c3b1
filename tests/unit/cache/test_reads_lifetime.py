"""How much of what was read a scorer keeps, and for how long: its own cache, bytes, models that go, forks, threads."""

from __future__ import annotations

import gc
import os
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from qr_core import Document, InputError, QRScorer, partition
from qr_core.attention.prefix import Prefix
from qr_core.cache.reads import SHARED, ReadCache
from qr_core.chain import ChainOptions
from qr_core.model import shared
from qr_core.ranking import survey
from tests.helpers import DOCUMENTS, QUERY, in_order
from tests.unit.cache.readers import OTHER, make


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
    with SHARED._lock, partition._living._lock:
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
