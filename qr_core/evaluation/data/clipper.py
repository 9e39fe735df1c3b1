"""CLIPPER: claims about whole books, each true one with a false twin; the chapters it was drawn from are gold.

    a folder    books.json + claims.json: [{"book", "paragraphs"}], [{"idx", "book", "question", "question_false",
                "gt_docs", "kind"}]
    one file    the same claims, each with the "paragraphs" of its book

Chapters are the documents; `longcontext` reads the files.
"""

from __future__ import annotations

from pathlib import Path

from qr_core.errors import InputError
from qr_core.evaluation.data.longcontext import LAYOUTS, Question, read_questions
from qr_core.evaluation.data.rows import text_of
from qr_core.evaluation.work import CandidateSet, Expected, Work

LABELS = ("true", "false")
ASKED = "Is this claim about the text true or false? Answer with one word, True or False.\nClaim: "


def read_clipper(path: Path, with_false: bool) -> Work:
    """Claims with the chapters of their book; claims about one book follow each other and share its chapters.

    Parameters
    ----------
    path : Path
    with_false : bool
        Also ask about the false twin, as `<idx>/false`, right after the true claim. Its ranking is not measured. The
        two are one unit, so that a generator that always answers the same gets none right.

    Raises
    ------
    InputError
        Naming the file and the entry at fault.
    """
    sets: list[CandidateSet] = []
    qrels: dict[str, dict[str, int]] = {}
    expected: dict[str, Expected] = {}
    for found in read_questions(path, [layout for layout in LAYOUTS if layout[2] == "book"]):
        try:
            asked = _asked(found, with_false)
        except InputError as error:
            raise InputError(f"{found.where}: {error}") from error
        for candidates, wanted in asked:
            if candidates.query_id in expected:
                raise InputError(f"{found.where}: claim {candidates.query_id!r} stands twice: rename one")
            sets.append(candidates)
            expected[candidates.query_id] = wanted
        qrels[found.candidates.query_id] = dict.fromkeys(found.gold, 1)
    if not sets:
        raise InputError(f"{path} holds no claims")
    notes = ("rankings are measured on true claims only",) if with_false else ()
    return Work(sets, qrels, expected, notes)


def _asked(found: Question, with_false: bool) -> list[tuple[CandidateSet, Expected]]:
    """The true claim and, where it is wanted, its twin."""
    true, kind = found.candidates, found.row.get("kind", "")
    if not isinstance(kind, str):
        raise InputError("'kind' must be a string")
    chapters = [document.id for document in true.documents]
    if len(set(chapters)) < len(chapters):
        raise InputError("two chapters of its book have the same 'idx': give each its own")
    claims = [(true, "true")]
    if with_false:
        claims.append(
            (CandidateSet(f"{true.query_id}/false", text_of(found.row, "question_false"), true.documents), "false")
        )
    return [(claim, Expected(f"{ASKED}{claim.query}", answer, kind, LABELS, true.query_id)) for claim, answer in claims]
