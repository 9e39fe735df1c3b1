"""BEIR folders: corpus, queries, judgements, and the candidates that each query's ranking starts from.

    corpus.jsonl      {"_id", "title", "text"}
    queries.jsonl     {"_id", "text"}
    qrels/test.tsv    query-id, corpus-id, score, tab-separated, with a header line

Each may end in `.gz`.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from qr_core.errors import InputError
from qr_core.evaluation.systems.bm25 import Bm25
from qr_core.evaluation.work import CandidateSet, Request, Work
from qr_core.files.inputs import json_lines, read_text
from qr_core.files.trec import read_run
from qr_core.types import Document


@dataclass(frozen=True)
class BeirSet:
    """A test collection, keyed by id."""

    corpus: Mapping[str, Document]
    queries: Mapping[str, str]
    qrels: Mapping[str, Mapping[str, int]]


BM25_DEPTH = 100
"""Candidates by BM25 where neither a run nor a depth is given."""
_GRADE = re.compile(r"^\s*-?[0-9]{1,6}\s*$")


def _existing(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise InputError(f"{folder} is no BEIR folder: it has neither {name} nor {name}.gz")


def _fields(path: Path, *names: str) -> list[tuple[str, ...]]:
    rows = []
    for number, row in json_lines(read_text(path), str(path)):
        missing = [name for name in names if name != "title" and not isinstance(row.get(name), str)]
        if missing:
            raise InputError(f"{path}, line {number}: {missing[0]!r} is missing or not a string")
        rows.append(tuple(str(row.get(name) or "") for name in names))
    return rows


def read_beir(folder: Path, split: str = "test") -> BeirSet:
    """Read a BEIR folder.

    Raises
    ------
    InputError
        When a file is missing or malformed; it names the file and line.
    """
    corpus = {
        key: Document(text, title or None, key)
        for key, title, text in _fields(_existing(folder, "corpus.jsonl"), "_id", "title", "text")
    }
    queries = {key: text for key, text in _fields(_existing(folder, "queries.jsonl"), "_id", "text")}  # noqa: C416
    qrels: dict[str, dict[str, int]] = defaultdict(dict)
    path = _existing(folder, f"qrels/{split}.tsv")
    for number, line in enumerate(read_text(path).split("\n")[1:], start=2):
        if not line.strip():
            continue
        parts = line.split("\t")
        if len(parts) != 3 or not _GRADE.match(parts[2]):
            raise InputError(f"{path}, line {number}: expected query-id, corpus-id, score")
        qrels[parts[0]][parts[1]] = int(parts[2])
    if not qrels:
        raise InputError(f"{path} holds no judgements")
    return BeirSet(corpus, queries, dict(qrels))


def read_candidates(path: Path) -> dict[str, list[str]]:
    """Candidate ids per query, best first, from a TREC run or from JSON lines with `query-id` and `candidates`.

    Raises
    ------
    InputError
        Naming the malformed line.
    """
    text = read_text(path)
    if text.lstrip().startswith("{"):
        found = {}
        for number, row in json_lines(text, str(path)):
            if not isinstance(row.get("candidates"), list) or "query-id" not in row:
                raise InputError(f"{path}, line {number}: expected 'query-id' and a list 'candidates'")
            found[str(row["query-id"])] = [str(key) for key in row["candidates"]]
        return found
    return read_run(text, str(path))


def sets_from_candidates(
    data: BeirSet, candidates: Mapping[str, Sequence[str]], depth: int | None
) -> list[CandidateSet]:
    """A candidate set per judged query, with its first `depth` candidates.

    Raises
    ------
    InputError
        When a judged query has no candidates, or a candidate is not in the corpus.
    """
    sets, whole = [], tuple(data.corpus.values())
    for query_id in data.qrels:
        if query_id not in candidates or query_id not in data.queries:
            what = "candidates" if query_id in data.queries else "text"
            raise InputError(f"judged query {query_id} has no {what}")
        keys = list(candidates[query_id])[:depth]
        unknown = [key for key in keys if key not in data.corpus]
        if unknown:
            raise InputError(f"candidate {unknown[0]} of query {query_id} is not in the corpus")
        sets.append(CandidateSet(query_id, data.queries[query_id], tuple(data.corpus[key] for key in keys), whole))
    return sets


def sets_by_title(data: BeirSet, size: int, seed: int) -> tuple[list[CandidateSet], int]:
    """Sets of `size` documents that share the answer's title, drawn and shuffled with `seed`.

    Returns
    -------
    tuple of (list of CandidateSet, int)
        The sets, and how many judged queries were left out because their title has fewer documents.
    """
    by_title: dict[str | None, list[str]] = defaultdict(list)
    for key, document in data.corpus.items():
        by_title[document.title].append(key)
    rng = random.Random(seed)
    sets, left_out, whole = [], 0, tuple(data.corpus.values())
    for query_id, judged in data.qrels.items():
        absent = [key for key in judged if key not in data.corpus]
        if query_id not in data.queries or absent:
            what = f"document {absent[0]} is not in the corpus" if absent else "query has no text"
            raise InputError(f"judged query {query_id}: {what}")
        golds = [key for key, grade in judged.items() if grade > 0]
        others = [key for key in by_title[data.corpus[golds[0]].title] if key not in golds] if golds else []
        if not golds or len(golds) + len(others) < size:
            left_out += 1
            continue
        keys = golds + rng.sample(others, max(0, size - len(golds)))
        rng.shuffle(keys)
        sets.append(CandidateSet(query_id, data.queries[query_id], tuple(data.corpus[key] for key in keys), whole))
    return sets, left_out


def bm25_candidates(data: BeirSet, depth: int) -> dict[str, list[str]]:
    """The best `depth` documents of the whole corpus for each judged query, best first; equal ones in corpus order."""
    keys = list(data.corpus)
    index = Bm25([data.corpus[key] for key in keys])
    found = {}
    for query_id in data.qrels:
        if query_id in data.queries:
            scores = index.scores(data.queries[query_id])
            best = sorted(range(len(keys)), key=lambda n, scores=scores: -scores[n])[:depth]  # type: ignore[misc]
            found[query_id] = [keys[n] for n in best]
    return found


def beir_work(request: Request) -> Work:
    """A collection's judged queries, with candidates from a run, from documents of one title, or from BM25.

    Raises
    ------
    InputError
        When a file is malformed, or both a run and a title's documents are asked for.
    """
    options, collection = request.options, read_beir(request.path)
    if options.candidates is not None and options.candidates_by_title is not None:
        raise InputError("pass either --candidates or --candidates-by-title")
    if options.max_words is not None:
        shortened = {key: _shortened(document, options.max_words) for key, document in collection.corpus.items()}
        collection = replace(collection, corpus=shortened)
    if options.candidates_by_title is not None:
        size = options.candidates_by_title
        sets, left_out = sets_by_title(collection, size, options.seed)
        note = f"{left_out} queries left out: fewer than {size} documents share their answer's title"
        return Work(sets, collection.qrels, notes=(note,) if left_out else ())
    if options.candidates is not None:
        ranked = read_candidates(options.candidates)
        return Work(sets_from_candidates(collection, ranked, options.depth), collection.qrels)
    depth = options.depth or BM25_DEPTH
    sets = sets_from_candidates(collection, bm25_candidates(collection, depth), depth)
    return Work(sets, collection.qrels, notes=(f"candidates: the first {depth} by BM25 of the whole corpus",))


def _shortened(document: Document, words: int) -> Document:
    """A document's first words; words are what blanks separate."""
    ends = [found.end() for found in islice(re.finditer(r"\S+", document.text), words + 1)]
    return document if len(ends) <= words else replace(document, text=document.text[: ends[words - 1]])
