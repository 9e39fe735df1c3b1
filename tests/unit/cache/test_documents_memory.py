"""Encoded documents are found again in memory: by any query, up to a bound, from several threads and models."""

from __future__ import annotations

import threading

import pytest

from qr_core import InputError
from qr_core.cache.documents import DocumentCache
from tests.helpers import DOCUMENTS, QUERY, in_order
from tests.unit.cache.encoded import OTHER, entry, key_of, scorer_of


def test_a_warm_document_is_not_run_again(counted):
    scorer = scorer_of()
    shapes = counted(scorer)
    first = scorer.rank(QUERY, DOCUMENTS)
    passes = 2  # the query's and that of N/A
    assert len(shapes) > passes
    documents = sum(batch for batch, _ in shapes[:-passes])
    assert documents == len(DOCUMENTS)
    shapes.clear()
    again = scorer.rank("Another question?", [DOCUMENTS[2], DOCUMENTS[0]])  # another combination, order, query
    assert len(shapes) == passes
    shapes.clear()
    scorer.rank(QUERY, [*DOCUMENTS, OTHER])
    assert sum(batch for batch, _ in shapes[:-passes]) == 1
    assert in_order(scorer.rank(QUERY, DOCUMENTS)) == in_order(first)
    assert len(again) == 2


def test_the_same_document_twice_is_run_once(counted):
    scorer = scorer_of()
    shapes = counted(scorer)
    scorer.rank(QUERY, [OTHER] * 5)
    assert [batch for batch, _ in shapes] == [1, 1, 1]  # document, query, N/A


def test_the_bound_holds_and_the_least_recently_used_goes():
    cache = DocumentCache(3 * entry().bytes)
    for number in range(3):
        cache.put({key_of(number): entry()})
    cache.get({key_of(0): 4}, entry())
    cache.put({key_of(3): entry()})
    found = cache.get({key_of(number): 4 for number in range(4)}, entry())
    assert found.keys() == {key_of(0), key_of(2), key_of(3)}
    assert cache.bytes == 3 * entry().bytes
    cache.put({key_of(9): entry(100)})  # larger than everything: not kept, pushes nothing out
    assert len(cache) == 3
    cache.clear()
    assert len(cache) == cache.bytes == 0


def test_threads_share_a_cache(expected):
    cache = DocumentCache(20 * 2**10)  # a few documents: entries come and go
    scorers = [scorer_of(cache), scorer_of(cache)]
    wrong: list[object] = []

    def ask(scorer):
        for _ in range(5):
            found = in_order(scorer.rank(QUERY, DOCUMENTS))
            if found != pytest.approx(expected, abs=1e-6):
                wrong.append(found)
            scorer.rank(QUERY, [OTHER, "More.", "And more."])

    threads = [threading.Thread(target=ask, args=(scorer,)) for scorer in scorers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert cache.bytes == sum(held.prefix.bytes for held in cache._store.values()) <= cache.max_bytes


def test_a_cache_serves_several_models(expected):
    cache = DocumentCache()
    other = in_order(scorer_of(DocumentCache(0), "tiny-qwen2").rank(QUERY, DOCUMENTS))
    for _ in range(2):
        assert in_order(scorer_of(cache).rank(QUERY, DOCUMENTS)) == pytest.approx(expected, abs=1e-6)
        assert in_order(scorer_of(cache, "tiny-qwen2").rank(QUERY, DOCUMENTS)) == pytest.approx(other, abs=1e-6)


def test_numbers_are_checked(tmp_path):
    with pytest.raises(InputError, match="max_bytes"):
        DocumentCache(-1)
    with pytest.raises(InputError, match="folder_bytes"):
        DocumentCache(folder=tmp_path / "cache", folder_bytes=0)
