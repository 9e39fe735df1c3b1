"""Store: every document in one place, on its own or in a joined prefix."""

from __future__ import annotations

import pytest
import torch

from qr_core.attention.prefix import Prefix, joined
from qr_core.cache.store import Store

TOKEN = 2 * 2 * 4 * 4
"""Bytes of a token: keys and values, two heads of width 4, float32."""


def states(tokens: int, value: float) -> Prefix:
    tensor = torch.full((1, 2, tokens, 4), value)
    return Prefix((tensor,), (tensor.clone(),))


def filled(max_bytes: int = 2**20, **lengths: int) -> tuple[Store, dict[str, Prefix]]:
    store = Store(max_bytes)
    documents = {name: states(tokens, number + 1.0) for number, (name, tokens) in enumerate(lengths.items())}
    for name, prefix in documents.items():
        store.add(name, prefix)
    return store, documents


def join(store: Store, documents: dict[str, Prefix], *names: str, owner: str = "one") -> bool:
    prefix = joined([states(3, 0.0), *(documents[name] for name in names)], room=2)
    spans, start = [], 3
    for name in names:
        spans.append((start, start + documents[name].length))
        start = spans[-1][1]
    return store.add_joined(owner, names, spans, prefix)


def same(found: Prefix | None, expected: Prefix) -> bool:
    return found is not None and torch.equal(found.keys[0], expected.keys[0])


def test_a_document_is_held_on_its_own_or_in_a_prefix_never_twice():
    store, documents = filled(a=5, b=7, c=2)
    assert store.currsize == 14 * TOKEN
    assert join(store, documents, "a", "b")
    assert store.currsize == (3 + 5 + 7 + 2 + 2) * TOKEN  # lead and room beside the documents
    assert all(same(store.find(name), documents[name]) for name in "abc")
    assert store.joined("one", ["a", "b"]).length == 15
    assert store.joined("one", ["b", "a"]) is None
    assert store.joined("another", ["a", "b"]) is None


def test_a_further_prefix_takes_its_documents_along_and_leaves_the_others_theirs():
    store, documents = filled(a=5, b=7, c=2)
    join(store, documents, "a", "b")
    join(store, documents, "b", "c")
    assert store.joined("one", ["a", "b"]) is None
    assert store.currsize == (5 + 3 + 7 + 2 + 2) * TOKEN
    assert all(same(store.find(name), documents[name]) for name in "abc")


def test_a_repeated_document_stands_twice_and_is_known_once():
    store, documents = filled(a=5)
    join(store, documents, "a", "a")
    assert list(store.homes) == ["a"]
    assert same(store.find("a"), documents["a"])


def test_parting_gives_every_document_memory_of_its_own():
    store, documents = filled(a=5, b=7)
    join(store, documents, "a", "b")
    store.part()
    assert store.currsize == 12 * TOKEN
    assert all(same(store.find(name), documents[name]) for name in "ab")
    assert store.find("a").keys[0].untyped_storage().nbytes() == 5 * TOKEN // 2


def test_what_is_used_least_recently_goes_first_and_a_prefix_as_a_whole():
    store, documents = filled(24 * TOKEN, a=5, b=5)
    join(store, documents, "a", "b")
    store.add("c", states(5, 9.0))
    store.find("c")
    store.add("d", states(6, 9.0))  # no room beside the prefix, which was used before
    assert sorted(store.homes) == ["c", "d"]
    assert store.currsize == 11 * TOKEN


@pytest.mark.parametrize("max_bytes", [0, 14 * TOKEN])
def test_what_is_larger_than_the_bound_is_not_held(max_bytes):
    store, documents = filled(max_bytes, a=5, b=7)
    assert not join(store, documents, "a", "b")
    assert sorted(store.homes) == (["a", "b"] if max_bytes else [])
