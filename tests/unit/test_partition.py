"""Partitions: what one client has had encoded, another one does not find, in any cache."""

from __future__ import annotations

import copy
import gc
import re
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from qr_core import DocumentCache, QRScorer, cache_partition
from qr_core.cache import ReadCache
from qr_core.partition import PartitionedCache, Remembered, living_caches
from tests.helpers import DOCUMENTS, GOLDEN, QUERY

ROOT = Path(__file__).parents[2]
CACHES = {
    "qr_core/partition.py",
    "qr_core/cache/store.py",  # of DocumentCache
    "qr_core/heads/sets.py",  # head sets of the package
    "qr_core/benchmark/task.py",  # texts of the benchmark
    "qr_core/evaluation/data/niah.py",
    "qr_core/evaluation/data/spans.py",
    "qr_core/evaluation/systems/entry.py",
}


KINDS = (ReadCache, DocumentCache, Remembered)


def encoded(scorer: QRScorer) -> int:
    """How many documents a ranking has to encode."""
    told: list[int] = []
    hook = scorer.model.at_depth(2).register_forward_pre_hook(
        lambda _, __, options: told.append(options["input_ids"].shape[0]), with_kwargs=True
    )
    scorer.rank(QUERY, DOCUMENTS)
    hook.remove()
    return sum(told[:-2])  # the last passes are those of the query and of `N/A`


def test_documents_encoded_independently_are_found_in_their_partition_only(tmp_path):
    scorer = QRScorer.from_pretrained(
        GOLDEN / "tiny-llama",
        "2-1",
        template="plain",
        device="cpu",
        layout="independent",
        cache_bytes=0,
        document_cache=DocumentCache(folder=tmp_path / "states"),
    )
    with cache_partition("a"):
        assert encoded(scorer) > len(DOCUMENTS)  # and the instruction
        assert encoded(scorer) == 0
    with cache_partition("b"):
        assert encoded(scorer) > len(DOCUMENTS)
    scorer.document_cache.clear()
    with cache_partition("a"):
        assert encoded(scorer) == 1  # the instruction: documents come from disk
    with cache_partition("c"):
        assert encoded(scorer) > len(DOCUMENTS)


def scorer_of(layout: str, **options) -> QRScorer:
    return QRScorer.from_pretrained(
        GOLDEN / "tiny-llama", "2-1", template="plain", device="cpu", layout=layout, **options
    )


@pytest.fixture
def calls(tmp_path) -> list[Callable[[], object]]:
    """Everything that keeps something of a call for the next one."""
    joint, independent = scorer_of("joint"), scorer_of("independent")
    own = scorer_of("independent", cache_bytes=2**24, document_cache=tmp_path / "states")
    calls: list[Callable[[], object]] = []
    for scorer in (joint, independent, own):
        calls += [
            partial(scorer.rank, QUERY, DOCUMENTS),
            partial(scorer.rank_many, [(QUERY, DOCUMENTS), ("Who built it?", DOCUMENTS)]),
            partial(scorer.prune, QUERY, DOCUMENTS, max_tokens=30),
            partial(scorer.explain, QUERY, DOCUMENTS),
        ]
    with suppress(ImportError):
        from langchain_core.messages import HumanMessage, ToolMessage
        from langchain_qrhead import QRHeadContextMiddleware

        agent = QRHeadContextMiddleware(
            10, model=str(GOLDEN / "tiny-llama"), heads="2-1", template="plain", device="cpu"
        )
        messages = [HumanMessage(QUERY), ToolMessage(" ".join(d.text for d in DOCUMENTS), tool_call_id="1")]
        calls.append(partial(agent._shortened, messages))
    return calls


def hits(calls: list[Callable[[], object]], partition: object) -> Counter[PartitionedCache]:
    """How much each cache finds for `calls`, in a partition."""
    before = {cache: cache.hits for cache in living_caches()}
    with cache_partition(partition):
        for call in calls:
            call()
    return Counter({cache: cache.hits - count for cache, count in before.items()})


def test_no_cache_of_any_kind_finds_what_another_partition_left(calls):
    """Every cache is known by its base class, so that a new one is looked at too; work is counted, not time.

    A call may find what it left itself: that is what the first client's finds are.
    """
    gc.collect()
    first, second, again = (hits(calls, client) for client in ("a", "b", "a"))
    assert first == second
    kinds = {kind: sum(again[cache] - first[cache] for cache in again if type(cache) is kind) for kind in KINDS}
    assert set(kinds) == set(subclasses(PartitionedCache))  # and each kind is in use here,
    assert all(more > 0 for more in kinds.values())  # finding what its own partition left


def subclasses(kind: type) -> list[type]:
    return [found for direct in kind.__subclasses__() for found in (direct, *subclasses(direct))]


def test_no_other_cache_keeps_what_callers_hand_in():
    """Ready-made caches are used where nothing of a caller's is kept, and below the base class of those that do."""
    pattern = re.compile(r"lru_cache|^from functools import .*\bcache\b|^(from|import) cachetools", re.MULTILINE)
    paths = [*ROOT.glob("qr_core/**/*.py"), *ROOT.glob("integrations/**/*.py")]
    assert {path.relative_to(ROOT).as_posix() for path in paths if pattern.search(path.read_text())} == CACHES


def test_what_is_remembered_is_bounded_and_starts_empty_when_copied():
    kept: Remembered[str] = Remembered(100, lambda key, made: len(made))
    made: list[str] = []

    def make(text: str) -> Callable[[], str]:
        return lambda: made.append(text) or text  # type: ignore[func-returns-value]

    for text in ("a" * 40, "b" * 40, "a" * 40, "c" * 40, "a" * 40, "b" * 40, "d" * 101, "d" * 101):
        assert kept.get(text, make(text)) == text
        assert kept.bytes <= 100
    assert [text[0] for text in made] == ["a", "b", "c", "b", "d", "d"]
    assert kept.hits == 2
    again = copy.deepcopy(kept)
    assert (again.max_bytes, again.bytes, again.hits) == (100, 0, 0)
