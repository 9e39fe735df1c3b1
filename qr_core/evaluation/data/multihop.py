"""Questions that take several passages to answer: HotpotQA, 2WikiMultiHopQA and MuSiQue.

    HotpotQA, 2Wiki    {"_id", "question", "answer", "context": [[title, [sentence, ...]], ...],
                        "supporting_facts": [[title, sentence number], ...]}
    as columns         {"id", ..., "context": {"title": [...], "sentences": [[...], ...]},
                        "supporting_facts": {"title": [...], "sent_id": [...]}}
    MuSiQue            {"id", "question", "answer",
                        "paragraphs": [{"title", "paragraph_text", "is_supporting"}, ...]}

A JSON list or JSON lines; `paragraphs` or `context` tells which of them an entry is. Passages are known by their place,
since titles may repeat. Which sentences of a passage support the answer is left unread.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qr_core.errors import InputError
from qr_core.evaluation.data.rows import as_id, grouped, id_of, list_of, read_rows, text_of, title_of
from qr_core.evaluation.work import CandidateSet, Expected, Work
from qr_core.types import Document

NOT_SAID = "The passages do not say."
"""The right answer to a question that is marked unanswerable."""


def read_multihop(path: Path) -> Work:
    """Questions with their own passages; every supporting passage is gold.

    Supporting facts name a title and a sentence. Where a title stands twice in a context, nothing tells which of the
    passages is meant, so all of that title are gold. Questions that MuSiQue marks as not answerable are asked, with
    an answer that says so, but their ranking is not measured; their id ends in `/unanswerable`, because the same id
    also stands with passages that do answer.

    `Expected.kind` is the data's `type` (such as bridge or comparison), or for MuSiQue the number of passages needed.

    Raises
    ------
    InputError
        Naming the file and the entry at fault, such as one of a test set, which has no supporting passages.
    """
    sets: list[CandidateSet] = []
    qrels: dict[str, dict[str, int]] = {}
    expected: dict[str, Expected] = {}
    for where, row in read_rows(path):
        try:
            query_id = id_of(row, "_id" if "_id" in row else "id")
            documents, gold, wanted = _read(row)
            query_id += "/unanswerable" if wanted.abstain else ""
            if query_id in expected:
                raise InputError(f"question {query_id!r} stands twice: keep one")
        except InputError as error:
            raise InputError(f"{where}: {error}") from error
        sets.append(CandidateSet(query_id, wanted.question, documents))
        expected[query_id] = wanted
        if not wanted.abstain:
            qrels[query_id] = {str(place): 1 for place in gold}
    left = len(sets) - len(qrels)
    notes = (f"{left} questions are marked unanswerable: they are asked, but have no ranking to measure",)
    return Work(grouped(sets), qrels, expected, notes if left else ())


def _read(row: Mapping[str, Any]) -> tuple[tuple[Document, ...], list[int], Expected]:
    """Passages, places of the supporting ones, and what is asked."""
    question, kind = text_of(row, "question"), row.get("type", "")
    if "paragraphs" in row:
        passages, gold = _paragraphs(list_of(row, "paragraphs"))
        kind = f"{len(gold)} hops"
        if not isinstance(row.get("answerable", True), bool):
            raise InputError("'answerable' must be true or false")
        if row.get("answerable") is False:
            return _documents(passages), gold, Expected(question, NOT_SAID, "unanswerable", abstain=True)
    elif "context" in row:
        passages = _context(row["context"])
        gold = _places(_supporting_titles(row), [title for title, _ in passages])
    else:
        raise InputError("it has neither a 'context' (HotpotQA, 2WikiMultiHopQA) nor 'paragraphs' (MuSiQue)")
    if not gold:
        raise InputError("no passage is marked as supporting, as in a test set: use a train or dev file")
    if not isinstance(kind, str):
        raise InputError("'type' must be a string")
    return _documents(passages), gold, Expected(question, text_of(row, "answer"), kind)


def _documents(passages: list[tuple[str | None, str]]) -> tuple[Document, ...]:
    return tuple(Document(text, title, str(place)) for place, (title, text) in enumerate(passages))


def _paragraphs(paragraphs: list[Any]) -> tuple[list[tuple[str | None, str]], list[int]]:
    """MuSiQue's passages as title and text, and places of the supporting ones."""
    passages: list[tuple[str | None, str]] = []
    gold = []
    for place, paragraph in enumerate(paragraphs):
        try:
            if not isinstance(paragraph, dict):
                raise InputError("it is no object")
            if not isinstance(paragraph.get("is_supporting", False), bool):
                raise InputError("'is_supporting' must be true or false")
            if not isinstance(paragraph.get("paragraph_text"), str):
                raise InputError("'paragraph_text' is missing or not a string")
            passages.append((title_of(paragraph), paragraph["paragraph_text"]))
        except InputError as error:
            raise InputError(f"paragraph {place}: {error}") from error
        if paragraph.get("is_supporting", False):
            gold.append(place)
    if not passages:
        raise InputError("'paragraphs' is empty")
    return passages, gold


def _context(context: Any) -> list[tuple[str | None, str]]:
    """HotpotQA's passages as title and text: sentences with one blank between them."""
    if isinstance(context, dict):
        titles, listed = list_of(context, "title"), list_of(context, "sentences")
        if len(titles) != len(listed):
            raise InputError(f"'context' has {len(titles)} titles but {len(listed)} lists of sentences")
        rows = [[title, sentences] for title, sentences in zip(titles, listed, strict=True)]
    elif isinstance(context, list):
        rows = context
    else:
        raise InputError("'context' must be a list of [title, sentences], or an object with 'title' and 'sentences'")
    if not rows:
        raise InputError("'context' is empty")
    passages: list[tuple[str | None, str]] = []
    for place, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != 2 or not isinstance(row[1], list):
            raise InputError(f"passage {place} of 'context' must be a title and a list of sentences")
        if not all(isinstance(sentence, str) for sentence in row[1]):
            raise InputError(f"passage {place} of 'context' has a sentence that is no string")
        text = " ".join(sentence.strip() for sentence in row[1] if sentence.strip())
        passages.append((as_id(row[0], "title"), text))
    return passages


def _supporting_titles(row: Mapping[str, Any]) -> list[str]:
    facts = row.get("supporting_facts") or []
    if isinstance(facts, dict):
        return [as_id(title, "title") for title in list_of(facts, "title")]
    if not isinstance(facts, list) or not all(isinstance(fact, list) and fact for fact in facts):
        raise InputError("'supporting_facts' must be a list of [title, sentence number], or an object with 'title'")
    return [as_id(fact[0], "title") for fact in facts]


def _places(wanted: list[str], titles: list[str | None]) -> list[int]:
    absent = [title for title in wanted if title not in titles]
    if absent:
        raise InputError(
            f"the supporting passage {absent[0]!r:.80} is not in its context: use a file whose contexts hold all "
            "supporting passages, such as HotpotQA's distractor setting"
        )
    return [place for place, title in enumerate(titles) if title in wanted]
