"""The queue that keeps what was read: bounds, order, owners, threads."""

from __future__ import annotations

import doctest
import gc
import random
from concurrent.futures import ThreadPoolExecutor

from hypothesis import given, settings
from hypothesis import strategies as st

from qr_core.cache import reads as cache
from qr_core.cache.reads import ReadCache
from tests.unit.cache.readers import Owner


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


def test_docstring_example():
    assert doctest.testmod(cache).failed == 0
