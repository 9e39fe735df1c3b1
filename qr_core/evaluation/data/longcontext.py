"""Long contexts with questions about them: the published code's JSON, and folders that keep each context once.

    one file     [{"idx", "question", "paragraphs": [{"idx", "title", "paragraph_text"}], "gt_docs": [idx, ...]}]
    a folder     books.json + claims.json, or meetings.json + queries.json: contexts by name, questions that name one

Each may end in `.gz`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qr_core.errors import InputError
from qr_core.evaluation.data.rows import as_id, id_of, read_list, title_of
from qr_core.evaluation.work import CandidateSet
from qr_core.types import Document

LAYOUTS = (("books.json", "claims.json", "book"), ("meetings.json", "queries.json", "meeting"))
"""Names of the contexts' file, of the questions' file, and of the field that joins them."""


@dataclass(frozen=True)
class Question:
    """One entry of a file.

    Attributes
    ----------
    candidates : CandidateSet
    gold : tuple of str
        Ids of the paragraphs that answer, at least one.
    row : mapping
        All fields of the entry.
    where : str
        File and entry, for errors.
    """

    candidates: CandidateSet
    gold: tuple[str, ...]
    row: Mapping[str, Any]
    where: str


def read_long_contexts(
    path: Path, problems: dict[str, str] | None = None
) -> tuple[list[CandidateSet], dict[str, dict[str, int]]]:
    """Candidate sets and judgements; see `read_questions`."""
    questions = read_questions(path, problems=problems)
    qrels = {question.candidates.query_id: dict.fromkeys(question.gold, 1) for question in questions}
    return [question.candidates for question in questions], qrels


def read_questions(
    path: Path, layouts: Sequence[tuple[str, str, str]] = LAYOUTS, problems: dict[str, str] | None = None
) -> list[Question]:
    """Questions; those over equal contexts share one tuple of documents and follow each other.

    Parameters
    ----------
    path : Path
    layouts : sequence of (str, str, str)
        Folders that are accepted.
    problems : dict, optional
        Filled with what is wrong with single questions, by id, which are then left out; without it they are errors.

    Raises
    ------
    InputError
        Naming the file and the entry at fault.
    """
    if path.is_dir():
        contexts, rows, key, origin = _folder(path, layouts)
    else:
        flat = read_list(path)
        rows = [{**row, "context": str(number)} for number, row in enumerate(flat)]
        contexts = {str(number): row for number, row in enumerate(flat)}
        key, origin = "context", path
    documents: dict[str, tuple[Document, ...]] = {}
    order: dict[tuple[Document, ...], tuple[Document, ...]] = {}
    found: dict[str, Question] = {}
    for number, row in enumerate(rows):
        query_id, where = str(number), f"{origin}, entry {number}"
        try:
            query_id = as_id(row.get("idx", number), "idx")
            name = id_of(row, key)
            if name not in contexts:
                raise InputError(f"there is no {key} {name!r}")
            if name not in documents:
                read = _paragraphs(contexts[name], f"{key} {name}")
                documents[name] = order.setdefault(read, read)
            if query_id in found:
                raise InputError(f"idx {query_id!r} stands twice")
            query, golds = _question(row, documents[name])
        except InputError as error:
            if problems is None:
                raise InputError(f"{where}: {error}") from error
            problems[f"{query_id} (entry {number})" if query_id in found else query_id] = str(error)
            continue
        found[query_id] = Question(CandidateSet(query_id, query, documents[name]), tuple(golds), row, where)
    places = {id(shared): number for number, shared in enumerate(order.values())}
    return sorted(found.values(), key=lambda question: places[id(question.candidates.documents)])


def _question(row: Mapping[str, Any], documents: tuple[Document, ...]) -> tuple[str, list[str]]:
    query, listed = row.get("question"), row.get("gt_docs")
    if not isinstance(query, str) or not query.strip() or not isinstance(listed, list) or not listed:
        raise InputError("expected a 'question' and a list 'gt_docs' that is not empty")
    golds = [as_id(gold, "gt_docs") for gold in listed]
    known = {str(document.id) for document in documents}
    absent = [gold for gold in golds if gold not in known]
    if absent:
        raise InputError(f"gold paragraph {absent[0]!r} is not in its context")
    return query, golds


def _folder(
    path: Path, layouts: Sequence[tuple[str, str, str]]
) -> tuple[dict[str, Mapping[str, Any]], list[dict[str, Any]], str, Path]:
    for contexts_name, questions_name, key in layouts:
        found = [_existing(path / name) for name in (contexts_name, questions_name)]
        if found[0] and found[1]:
            return _contexts(found[0], key), read_list(found[1]), key, found[1]
    wanted = " or ".join(f"{a} and {b}" for a, b, _ in layouts)
    raise InputError(f"{path} does not hold {wanted} (or .json.gz)")


def _existing(path: Path) -> Path | None:
    return next((p for p in (path, path.with_name(f"{path.name}.gz")) if p.is_file()), None)


def _contexts(path: Path, key: str) -> dict[str, Mapping[str, Any]]:
    found: dict[str, Mapping[str, Any]] = {}
    for number, row in enumerate(read_list(path)):
        try:
            name = id_of(row, key)
            if name in found:
                raise InputError(f"{key} {name!r} stands twice")
        except InputError as error:
            raise InputError(f"{path}, entry {number}: {error}") from error
        found[name] = row
    return found


def _paragraphs(context: Mapping[str, Any], where: str) -> tuple[Document, ...]:
    paragraphs = context.get("paragraphs")
    if not isinstance(paragraphs, list) or not paragraphs:
        raise InputError(f"{where}: 'paragraphs' is missing or empty")
    documents = []
    for number, paragraph in enumerate(paragraphs):
        if not isinstance(paragraph, dict) or not isinstance(paragraph.get("paragraph_text"), str):
            raise InputError(f"{where}, paragraph {number}: 'paragraph_text' is missing or not a string")
        try:
            key = as_id(paragraph.get("idx", number), "idx")
            documents.append(Document(paragraph["paragraph_text"], title_of(paragraph), key))
        except InputError as error:
            raise InputError(f"{where}, paragraph {number}: {error}") from error
    return tuple(documents)
