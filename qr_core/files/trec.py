"""TREC files: runs and judgements as lines of columns, for trec_eval and all that reads its formats.

    run           query Q0 document rank score tag
    judgements    query 0 document grade

Blanks end a column, so ids are written as words; see `word`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from pathlib import Path

from qr_core.files.replace import write_file

_UNSAFE = {"Cc", "Cs", "Zl", "Zp", "Zs"}


def word(key: str) -> str:
    r"""An id that stands in one column of a file: blanks, control characters and lone surrogates as `\x{20}`.

    A backslash becomes two, and an empty id one, so that different ids stay different; all others stay as they are.
    """
    if not key:
        return "\\"
    return "".join(_escaped(c) for c in key)


def _escaped(character: str) -> str:
    if character == "\\":
        return "\\\\"
    unsafe = character.isspace() or unicodedata.category(character) in _UNSAFE
    return f"\\x{{{ord(character):x}}}" if unsafe else character


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
