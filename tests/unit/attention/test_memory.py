"""Short memory: smaller pieces once, with a warning, then one clear error."""

from __future__ import annotations

import pytest
import torch

from qr_core import MemoryLimitError, QRScorer
from qr_core.attention import memory, prefill
from qr_core.cache.reads import SHARED
from qr_core.reading import layout as readers
from tests.helpers import DOCUMENTS, GOLDEN, QUERY, in_order


@pytest.fixture(scope="module")
def tiny() -> QRScorer:
    return QRScorer.from_pretrained(GOLDEN / "tiny-llama", "2-1,4-3,3-5", template="plain", device="cpu", cache_bytes=0)


ERRORS = (
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
)


@pytest.fixture
def failing(tiny, monkeypatch):
    """Let the next forward passes fail; records how many rows each had."""
    model = tiny.reader.model.at_depth(4)
    monkeypatch.setattr(prefill, "chunk_rows", lambda *_: 80)
    monkeypatch.setattr(prefill, "SMALLEST_CHUNK", 16)
    rows, left = [], []
    forward = type(model).forward

    def once(self, input_ids=None, **options):
        rows.append(input_ids.shape[-1])
        if left and (input_ids.shape[-1] > 16 or left[-1] == "always"):
            raise left[0] if left[-1] == "always" else left.pop()
        return forward(self, input_ids=input_ids, **options)

    monkeypatch.setattr(type(model), "forward", once)
    return rows, left


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_smaller_chunks_are_tried_once(tiny, failing, error):
    expected = in_order(tiny.rank(QUERY, DOCUMENTS))
    rows, left = failing
    rows.clear()
    left.append(error)
    SHARED.put(tiny, "something", 1, 1)
    seen = []
    with pytest.warns(UserWarning, match="memory is short when running 80 of"):
        found = tiny.rank(QUERY, DOCUMENTS, progress=lambda done, total: seen.append(done))
    assert in_order(found) == pytest.approx(expected, abs=1e-6)
    assert rows[:2] == [80, 20]
    assert len(SHARED) == 0
    assert seen == sorted(set(seen))


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_then_there_is_one_clear_error(tiny, failing, error):
    expected = in_order(tiny.rank(QUERY, DOCUMENTS))
    _, left = failing
    left += [error, "always"]
    with (
        pytest.warns(UserWarning, match="memory is short"),
        pytest.raises(MemoryLimitError, match=r"running 20 of \d+ tokens at a time: set max_prompt_tokens"),
    ):
        tiny.rank(QUERY, DOCUMENTS)
    left.clear()
    assert in_order(tiny.rank(QUERY, DOCUMENTS)) == expected


def test_the_second_try_takes_no_more_than_it_may():
    """A whole prompt is followed by chunks, which need a mask: a share of the whole may be too many rows."""
    rows = []

    def run(count):
        rows.append(count)
        if len(rows) < 2:
            raise MemoryError
        return count

    with pytest.warns(UserWarning, match="trying again, 30 at a time"):
        assert memory.in_pieces(run, 1_000, 16, "of 1000 tokens", None, 30) == 30
    assert rows == [1_000, 30]


def test_other_errors_pass(tiny, failing):
    _, left = failing
    left += [RuntimeError("shapes do not fit"), "always"]
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        tiny.rank(QUERY, DOCUMENTS)


def test_queries_together_become_queries_alone(tiny, monkeypatch):
    jobs = [(query, DOCUMENTS) for query in (QUERY, "Who built the bridge?", "Forty loaves?")]
    expected = [in_order(ranking) for ranking in tiny.rank_many(jobs)]
    run, sizes = readers.query_passes, []

    def short(model, prefix, suffixes, *args):
        sizes.append(len(suffixes))
        if len(suffixes) > 1:
            raise MemoryError
        return run(model, prefix, suffixes, *args)

    monkeypatch.setattr(readers, "query_passes", short)
    with pytest.warns(UserWarning, match="running 3 queries over"):
        found = tiny.rank_many(jobs)
    assert sizes == [1, 3, 1, 1, 1]
    for ranking, scores in zip(found, expected, strict=True):
        assert in_order(ranking) == pytest.approx(scores, abs=1e-6)


def test_what_the_first_try_held_is_let_go():
    alive = []

    class Held:
        def __del__(self):
            alive.remove(id(self))

    def run(rows):
        assert alive == []
        held = Held()
        alive.append(id(held))
        raise MemoryError

    with pytest.warns(UserWarning, match="again, 5 at a time"), pytest.raises(MemoryLimitError):
        memory.in_pieces(run, 20, 2, "rows")
    assert alive == []
