"""TREC files: runs and judgements as lines of columns, for trec_eval and all that reads its formats.

    run           query Q0 document rank score tag
    judgements    query 0 document grade

Blanks end a column, so ids are written as words; see `word`.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from qr_core.errors import InputError
from qr_core.files.replace import write_file

_UNSAFE = {"Cc", "Cs", "Zl", "Zp", "Zs"}
_ESCAPE = re.compile(r"\\(?:\\|x\{([0-9a-f]{1,5}|10[0-9a-f]{4})\})")


def word(key: str) -> str:
    r"""An id that stands in one column of a file: blanks, control characters and lone surrogates as `\x{20}`.

    So is U+FEFF, which readers take off the beginning of a file. A backslash becomes two, and an empty id one, so that
    different ids stay different; all others stay as they are.
    """
    if not key:
        return "\\"
    return "".join(_escaped(c) for c in key)


def _escaped(character: str) -> str:
    if character == "\\":
        return "\\\\"
    unsafe = character.isspace() or unicodedata.category(character) in _UNSAFE or character == "\ufeff"
    return f"\\x{{{ord(character):x}}}" if unsafe else character


def unword(written: str) -> str:
    r"""The id that `word` wrote so. A backslash that begins no escape is itself, as in other programs' files."""
    if written == "\\":
        return ""
    return _ESCAPE.sub(lambda found: chr(int(found[1], 16)) if found[1] else "\\", written)


def read_run(text: str, origin: str) -> dict[str, list[str]]:
    """Ids of each query's documents, best first, from the text of a run; `origin` names it in errors.

    Raises
    ------
    InputError
        Naming the malformed line.
    """
    ranked: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for number, line in enumerate(text.split("\n"), start=1):
        parts = line.split()
        if not parts:
            continue
        if len(parts) != 6 or not re.fullmatch(r"[0-9]{1,9}", parts[3]):
            raise InputError(f"{origin}, line {number}: expected 'query Q0 document rank score tag'")
        ranked[unword(parts[0])].append((int(parts[3]), unword(parts[2])))
    return {query: [key for _, key in sorted(rows)] for query, rows in ranked.items()}


def write_run(path: Path, tag: str, run: Mapping[str, Mapping[str, float]]) -> None:
    """Write a run; equal scores keep their order, which trec_eval passes over: it orders them by id, descending."""
    lines = []
    for query, scores in run.items():
        ranked = sorted(scores.items(), key=lambda item: -item[1])
        for place, (key, score) in enumerate(ranked, start=1):
            lines.append(f"{word(query)} Q0 {word(key)} {place} {score!r} {tag}\n")
    write_file(path, "".join(lines))


def write_qrels(path: Path, qrels: Mapping[str, Mapping[str, int]]) -> None:
    """Write judgements."""
    lines = (
        f"{word(query)} 0 {word(key)} {grade}\n" for query, grades in qrels.items() for key, grade in grades.items()
    )
    write_file(path, "".join(lines))
