"""Tasks: from a kind of data to the work it makes.

Knows nothing of systems, metrics or the command line.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import islice
from pathlib import Path

from qr_core.errors import InputError
from qr_core.evaluation.work import Pool, Work
from qr_core.text.pruning import Count
from qr_core.types import Document


class Task(str, Enum):
    """What is evaluated."""

    beir = "beir"
    longcontext = "longcontext"
    longmemeval = "longmemeval"
    clipper = "clipper"
    multihop = "multihop"
    niah = "niah"
    spans = "spans"


class PoolOrder(str, Enum):
    """Order of the candidates in the prompt."""

    given = "given"
    reversed = "reversed"
    shuffled = "shuffled"


@dataclass(frozen=True)
class Choice:
    """Which work of a data set is done; see the command's options."""

    candidates: Path | None = None
    pool_by_title: int | None = None
    depth: int | None = None
    max_words: int | None = None
    lengths: tuple[int, ...] = (1000, 4000)
    depths: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    needles: Path | None = None
    shuffled: bool = False
    seed: int = 0
    limit: int | None = None


BM25_DEPTH = 100
"""Candidates by BM25 where neither a run nor a depth is given."""


def read_work(task: Task, data: Path | None, choice: Choice, with_answers: bool, count: Count | None = None) -> Work:
    """The queries of a data set, with their candidates.

    Parameters
    ----------
    data : Path, optional
        As the readers of this package describe it; for niah a text file, by default the demo's articles.
    with_answers : bool
        Whether a generator will answer.
    count : callable, optional
        Tokens of a text; niah measures its haystacks with it.

    Raises
    ------
    InputError
        When the data is malformed, or the choice does not go with the task.
    """
    of_beir = (choice.candidates, choice.pool_by_title, choice.depth, choice.max_words)
    if task is not Task.beir and of_beir != (None,) * 4:
        raise InputError("--candidates, --pool-by-title, --depth and --max-words go with --task beir")
    if task is not Task.niah and choice.needles is not None:
        raise InputError("--needles goes with --task niah")
    if data is None and task is not Task.niah:
        raise InputError(f"--task {task.value} needs --data")
    work = (
        _beir(data, choice)
        if task is Task.beir and data is not None
        else _other(task, data, choice, with_answers, count)
    )
    rng = random.Random(choice.seed)
    pools = work.pools
    if not pools:
        raise InputError(f"{data} holds no query with candidates")
    _check(pools)
    if choice.limit is not None:
        pools = _some(pools, work, choice.limit, rng)
    if choice.shuffled:
        pools = _shuffled(pools, rng)
    return replace(work, pools=pools)


def _check(pools: Sequence[Pool]) -> None:
    """Refuse, before anything is run, what would end a run or merge two documents."""
    seen: set[int] = set()
    for pool in pools:
        if not pool.query.strip():
            raise InputError(f"query {pool.query_id!r:.80} is blank: give it a text, or take it out")
        if id(pool.documents) in seen:
            continue
        seen.add(id(pool.documents))
        (key, times), *_ = [*Counter(str(d.id) for d in pool.documents).most_common(1), ("", 1)]
        if times > 1:
            raise InputError(
                f"document {key!r:.80} stands {times} times among the candidates of query {pool.query_id!r:.80}"
            )


def _beir(data: Path, choice: Choice) -> Work:
    from qr_core.evaluation.data import beir
    from qr_core.evaluation.systems import bm25

    collection = beir.read_beir(data)
    if choice.max_words is not None:
        shortened = {key: _shortened(document, choice.max_words) for key, document in collection.corpus.items()}
        collection = replace(collection, corpus=shortened)
    if choice.candidates is not None and choice.pool_by_title is not None:
        raise InputError("pass either --candidates or --pool-by-title")
    if choice.pool_by_title is not None:
        size = choice.pool_by_title
        pools, left_out = beir.pools_by_title(collection, size, choice.seed)
        note = f"{left_out} queries left out: fewer than {size} documents share their answer's title"
        return Work(pools, collection.qrels, notes=(note,) if left_out else ())
    if choice.candidates is not None:
        found = beir.read_candidates(choice.candidates)
        return Work(beir.pools_from_candidates(collection, found, choice.depth), collection.qrels)
    depth = choice.depth or BM25_DEPTH
    pools = beir.pools_from_candidates(collection, bm25.candidates(collection, depth), depth)
    return Work(pools, collection.qrels, notes=(f"candidates: the first {depth} by BM25 of the whole corpus",))


def _shortened(document: Document, words: int) -> Document:
    """A document's first words; words are what blanks separate."""
    ends = [found.end() for found in islice(re.finditer(r"\S+", document.text), words + 1)]
    return document if len(ends) <= words else replace(document, text=document.text[: ends[words - 1]])


def _other(task: Task, data: Path | None, choice: Choice, with_answers: bool, count: Count | None) -> Work:
    if task is Task.longcontext and data is not None:
        from qr_core.evaluation.data.longcontext import read_long_contexts

        return Work(*read_long_contexts(data))
    if task is Task.longmemeval and data is not None:
        from qr_core.evaluation.data.longmemeval import read_longmemeval

        return read_longmemeval(data)
    if task is Task.clipper and data is not None:
        from qr_core.evaluation.data.clipper import read_clipper

        return read_clipper(data, with_answers)
    if task is Task.multihop and data is not None:
        from qr_core.evaluation.data.multihop import read_multihop

        return read_multihop(data)
    from qr_core.detection.needles import NEEDLES, default_haystack, read_needles
    from qr_core.evaluation.data.niah import needle_grid
    from qr_core.files.inputs import read_text

    haystack = default_haystack() if data is None else read_text(data)
    needles = NEEDLES if choice.needles is None else read_needles(choice.needles)
    work, grid = needle_grid(
        haystack, needles, choice.lengths, choice.depths, count or (lambda text: len(text.split()))
    )
    return replace(work, grid=grid)


def _some(pools: list[Pool], work: Work, limit: int, rng: random.Random) -> list[Pool]:
    """`limit` queries; those that count together are taken or left together."""
    units: dict[str, list[int]] = {}
    for number, pool in enumerate(pools):
        expected = work.expected.get(pool.query_id)
        units.setdefault(expected.unit if expected and expected.unit else f"\x00{pool.query_id}", []).append(number)
    if limit >= len(units):
        return pools
    kept = {number for unit in rng.sample(list(units), limit) for number in units[unit]}
    return [pool for number, pool in enumerate(pools) if number in kept]


def _shuffled(pools: list[Pool], rng: random.Random) -> list[Pool]:
    """Every list of candidates in another order; one that is shared stays shared."""
    orders = {}
    for pool in pools:
        if id(pool.documents) not in orders:
            orders[id(pool.documents)] = tuple(rng.sample(pool.documents, len(pool.documents)))
    return [replace(pool, documents=orders[id(pool.documents)]) for pool in pools]
