"""Examples for head detection, from files: BEIR folders, long-context JSON, and JSON lines.

    *.jsonl     {"query", "documents": [text or {"text", "title", "id"}], "gold": [position, ...]}
                or {"query", "positives": [...], "negatives": [...]} (also `question`, `pos`, `neg`)
    *.json      the published code's [{"idx", "question", "paragraphs", "gt_docs"}]; see `longcontext`
    a folder    a BEIR set, with a candidates run; or books and meetings, as `longcontext` reads them

Each file may end in `.gz`. What is wrong with one example is reported and costs that example alone; a file that cannot
be read at all is an error.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qr_core.detection.examples import Example
from qr_core.errors import InputError
from qr_core.evaluation.data.beir import BeirSet, read_beir, read_candidates
from qr_core.evaluation.data.longcontext import read_long_contexts
from qr_core.files.inputs import json_lines, read_text
from qr_core.types import Document, as_document


def read_examples(
    path: Path, candidates: Path | None = None, depth: int | None = None
) -> tuple[list[Example], dict[str, str]]:
    """Examples, and by id what is wrong with those that could not be read.

    Parameters
    ----------
    path : Path
    candidates : Path, optional
        For a BEIR folder: a TREC run or JSON lines, see `beir.read_candidates`.
    depth : int, optional
        Use at most this many candidates, the first ones.

    Raises
    ------
    InputError
        When the file or folder is none of these kinds, or is malformed as a whole.
    """
    if path.is_dir() and any((path / name).is_file() for name in ("corpus.jsonl", "corpus.jsonl.gz")):
        if candidates is None:
            raise InputError(f"{path} is a BEIR folder: pass a run of candidates for its queries as well")
        return _from_beir(read_beir(path), read_candidates(candidates), depth)
    if candidates is not None or depth is not None:
        raise InputError("a candidates run and a depth go with a BEIR folder")
    if not path.is_dir() and path.name.removesuffix(".gz").endswith(".jsonl"):
        return _from_lines(path)
    problems: dict[str, str] = {}
    sets, qrels = read_long_contexts(path, problems)
    examples = []
    for found in sets:
        place = {str(document.id): number for number, document in enumerate(found.documents)}
        gold = tuple(sorted(place[key] for key in qrels[found.query_id]))
        examples.append(Example(found.query_id, found.query, found.documents, gold))
    return examples, problems


def _from_beir(
    data: BeirSet, candidates: Mapping[str, list[str]], depth: int | None
) -> tuple[list[Example], dict[str, str]]:
    examples, problems = [], {}
    for query_id, grades in data.qrels.items():
        keys = candidates.get(query_id, [])[:depth]
        unknown = [key for key in keys if key not in data.corpus]
        if query_id not in data.queries:
            problems[query_id] = "the judged query has no text"
        elif not keys:
            problems[query_id] = "the judged query has no candidates"
        elif unknown:
            problems[query_id] = f"candidate {unknown[0]!r} is not in the corpus"
        else:
            documents = tuple(data.corpus[key] for key in keys)
            gold = tuple(number for number, key in enumerate(keys) if grades.get(key, 0) > 0)
            examples.append(Example(query_id, data.queries[query_id], documents, gold))
    return examples, problems


def _from_lines(path: Path) -> tuple[list[Example], dict[str, str]]:
    examples, problems = [], {}
    for number, row in json_lines(read_text(path), str(path)):
        name = str(row.get("id", f"line {number}"))
        try:
            examples.append(_from_row(row, name))
        except InputError as error:
            problems[name] = str(error)
    return examples, problems


def _from_row(row: Mapping[str, Any], name: str) -> Example:
    query = _first(row, "query", "question")
    if not isinstance(query, str):
        raise InputError("it has no 'query'")
    if "documents" in row:
        documents = _documents(row["documents"], "documents")
        gold = row.get("gold")
        if not isinstance(gold, list) or not all(isinstance(g, int) and not isinstance(g, bool) for g in gold):
            raise InputError("'gold' is no list of positions in 'documents'")
        return Example(name, query, documents, tuple(gold))
    positives = _documents(_first(row, "positives", "pos"), "positives")
    negatives = _documents(_first(row, "negatives", "neg"), "negatives")
    order = list(range(len(positives) + len(negatives)))
    random.Random(name).shuffle(order)  # the file says nothing of an order, and the answers must not all stand first
    everything = positives + negatives
    gold = tuple(new for new, old in enumerate(order) if old < len(positives))
    return Example(name, query, tuple(everything[old] for old in order), gold)


def _first(row: Mapping[str, Any], *names: str) -> Any:
    return next((row[name] for name in names if name in row), None)


def _documents(values: Any, name: str) -> tuple[Document, ...]:
    if not isinstance(values, list):
        raise InputError(f"{name!r} is missing or no list")
    return tuple(as_document(value, number) for number, value in enumerate(values))
