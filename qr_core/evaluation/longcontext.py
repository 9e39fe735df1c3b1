"""Long contexts with questions about them: the published code's JSON, and folders that keep each context once.

    one file     [{"idx", "question", "paragraphs": [{"idx", "title", "paragraph_text"}], "gt_docs": [idx, ...]}]
    a folder     books.json + claims.json, or meetings.json + queries.json: contexts by name, questions that name one

Each may end in `.gz`. Knows nothing of scorers or metrics.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qr_core.errors import InputError
from qr_core.evaluation.work import Pool
from qr_core.inputs import read_text
from qr_core.types import Document

LAYOUTS = (("books.json", "claims.json", "book"), ("meetings.json", "queries.json", "meeting"))


def read_long_contexts(
    path: Path, problems: dict[str, str] | None = None
) -> tuple[list[Pool], dict[str, dict[str, int]]]:
    """Pools and judgements; pools over the same context share one tuple of documents and follow each other.

    Parameters
    ----------
    path : Path
    problems : dict, optional
        Filled with what is wrong with single questions, by id, which are then left out; without it they are errors.

    Raises
    ------
    InputError
        Naming the file and the entry at fault.
    """
    if path.is_dir():
        contexts, questions, key, origin = _folder(path)
    else:
        rows = _rows(path)
        questions = [{**row, "context": str(number)} for number, row in enumerate(rows)]
        contexts = {str(number): row for number, row in enumerate(rows)}
        key, origin = "context", path
    documents: dict[str, tuple[Document, ...]] = {}
    pools: list[Pool] = []
    qrels: dict[str, dict[str, int]] = {}
    for number, row in enumerate(questions):
        query_id = str(row.get("idx", number))
        try:
            name = str(row.get(key))
            if name not in contexts:
                raise InputError(f"there is no {key} {name!r}")
            if name not in documents:
                documents[name] = _paragraphs(contexts[name], f"{key} {name}")
            if query_id in qrels:
                raise InputError(f"idx {query_id!r} stands twice")
            query, golds = _question(row, documents[name])
        except InputError as error:
            if problems is None:
                raise InputError(f"{origin}, entry {number}: {error}") from error
            problems[f"{query_id} (entry {number})" if query_id in qrels else query_id] = str(error)
            continue
        pools.append(Pool(query_id, query, documents[name]))
        qrels[query_id] = dict.fromkeys(golds, 1)
    order = {id(shared): number for number, shared in enumerate(documents.values())}
    return sorted(pools, key=lambda pool: order[id(pool.documents)]), qrels


def _question(row: Mapping[str, Any], documents: tuple[Document, ...]) -> tuple[str, list[str]]:
    query, golds = row.get("question"), row.get("gt_docs")
    if not isinstance(query, str) or not query.strip() or not isinstance(golds, list) or not golds:
        raise InputError("expected a 'question' and a list 'gt_docs' that is not empty")
    known = {str(document.id) for document in documents}
    absent = [gold for gold in golds if str(gold) not in known]
    if absent:
        raise InputError(f"gold paragraph {absent[0]!r} is not in its context")
    return query, [str(gold) for gold in golds]


def _folder(path: Path) -> tuple[dict[str, Mapping[str, Any]], list[Any], str, Path]:
    for contexts_name, questions_name, key in LAYOUTS:
        found = [_existing(path / name) for name in (contexts_name, questions_name)]
        if found[0] and found[1]:
            return {str(row.get(key)): row for row in _rows(found[0])}, _rows(found[1]), key, found[1]
    wanted = " or ".join(f"{a} and {b}" for a, b, _ in LAYOUTS)
    raise InputError(f"{path} has neither {wanted} (or .json.gz)")


def _existing(path: Path) -> Path | None:
    return next((p for p in (path, path.with_name(f"{path.name}.gz")) if p.is_file()), None)


def _rows(path: Path) -> list[Any]:
    try:
        rows = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path} is not a list of objects")
    return rows


def _paragraphs(context: Mapping[str, Any], where: str) -> tuple[Document, ...]:
    paragraphs = context.get("paragraphs")
    if not isinstance(paragraphs, list) or not paragraphs:
        raise InputError(f"{where}: 'paragraphs' is missing or empty")
    documents = []
    for number, paragraph in enumerate(paragraphs):
        if not isinstance(paragraph, dict) or not isinstance(paragraph.get("paragraph_text"), str):
            raise InputError(f"{where}, paragraph {number}: 'paragraph_text' is missing or not a string")
        title = paragraph.get("title") or None
        documents.append(
            Document(
                paragraph["paragraph_text"], None if title is None else str(title), str(paragraph.get("idx", number))
            )
        )
    return tuple(documents)
