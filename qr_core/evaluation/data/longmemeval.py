"""LongMemEval: questions about a long history of chats, each with the sessions that answer it.

    [{"question_id", "question_type", "question", "question_date", "answer", "answer_session_ids",
      "haystack_session_ids", "haystack_dates", "haystack_sessions": [[{"role", "content"}, ...], ...]}, ...]

Sessions are the documents. The mark on the turns that hold the answer is not read: a system that was shown it could
read the answer off it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qr_core.errors import InputError
from qr_core.evaluation.data.rows import as_id, grouped, id_of, list_of, read_rows, text_of
from qr_core.evaluation.work import CandidateSet, Expected, Work
from qr_core.types import Document

ABSTENTION = "_abs"
"""How the id of a question ends that the history does not answer."""


def read_longmemeval(path: Path) -> Work:
    """Questions with their sessions; those in `answer_session_ids` are gold.

    A session's title is its date; its text is its turns, each from a new line on. Where an id stands twice in a
    history, the second session is called `<id>#2`, and both are gold if the id is.

    Abstention questions are asked, but have no ranking to measure, as in the official evaluation.

    Raises
    ------
    InputError
        Naming the file and the entry at fault.
    """
    sets: list[CandidateSet] = []
    qrels: dict[str, dict[str, int]] = {}
    expected: dict[str, Expected] = {}
    for where, row in read_rows(path):
        try:
            query_id = id_of(row, "question_id")
            if query_id in expected:
                raise InputError(f"question {query_id!r} stands twice: keep one")
            abstain = query_id.endswith(ABSTENTION)
            sessions = _sessions(row)
            gold = [] if abstain else _gold(row, sessions)
            question, date = text_of(row, "question"), text_of(row, "question_date")
            asked, kind = f"Today is {date}. {question}", text_of(row, "question_type")
            expected[query_id] = Expected(asked, id_of(row, "answer"), kind, abstain=abstain)
        except InputError as error:
            raise InputError(f"{where}: {error}") from error
        sets.append(CandidateSet(query_id, question, tuple(document for _, document in sessions)))
        if not abstain:
            qrels[query_id] = dict.fromkeys(gold, 1)
    left = len(sets) - len(qrels)
    notes = (f"{left} abstention questions are asked, but have no ranking to measure",)
    return Work(grouped(sets), qrels, expected, notes if left else ())


def _sessions(row: Mapping[str, Any]) -> list[tuple[str, Document]]:
    """The id that the file gives each session, and the session."""
    names = [as_id(name, "haystack_session_ids") for name in list_of(row, "haystack_session_ids")]
    dates = [as_id(date, "haystack_dates") for date in list_of(row, "haystack_dates")]
    sessions = list_of(row, "haystack_sessions")
    if not sessions or not len(names) == len(dates) == len(sessions):
        raise InputError(
            f"'haystack_session_ids', 'haystack_dates' and 'haystack_sessions' must be of one length, from 1, but "
            f"have {len(names)}, {len(dates)} and {len(sessions)}"
        )
    documents = [
        Document(_text(turns, place), f"Session of {date}", key)
        for place, (key, date, turns) in enumerate(zip(_distinct(names), dates, sessions, strict=True))
    ]
    return list(zip(names, documents, strict=True))


def _distinct(names: list[str]) -> list[str]:
    """Each name, with its number behind from the second time on."""
    taken, seen = set(names), Counter[str]()
    keys = []
    for name in names:
        seen[name] += 1
        key = name
        if seen[name] > 1:
            key = f"{name}#{seen[name]}"
            while key in taken:
                key += "#"
            taken.add(key)
        keys.append(key)
    return keys


def _text(turns: Any, place: int) -> str:
    """A session's turns, one after the other; a session without turns is blank."""
    if not isinstance(turns, list):
        raise InputError(f"session {place} must be a list of turns")
    lines = []
    for turn in turns:
        if not isinstance(turn, dict) or not all(isinstance(turn.get(name), str) for name in ("role", "content")):
            raise InputError(f"every turn of session {place} must be an object with the strings 'role' and 'content'")
        lines.append(f"{turn['role']}: {turn['content'].strip()}")
    return "\n".join(lines)


def _gold(row: Mapping[str, Any], sessions: list[tuple[str, Document]]) -> list[str]:
    wanted = [as_id(name, "answer_session_ids") for name in list_of(row, "answer_session_ids")]
    known = {name for name, _ in sessions}
    absent = [name for name in wanted if name not in known]
    if absent:
        raise InputError(
            f"answer session {absent[0]!r:.80} is not among 'haystack_session_ids': its history is not complete"
        )
    if not wanted:
        raise InputError("'answer_session_ids' is empty: name the sessions that answer")
    return [str(document.id) for name, document in sessions if name in wanted]
