"""Rows: the objects of a data file, where each stands, and checks of their fields.

    [{...}, ...]     one JSON list of objects
    {...}            JSON lines, one object each

Either may end in `.gz`. What a field holds is named by its type only, never printed before it is known to be short.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from qr_core.errors import InputError
from qr_core.evaluation.work import CandidateSet
from qr_core.files.inputs import json_lines, read_text
from qr_core.types import Document


def read_list(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON list.

    Raises
    ------
    InputError
        When the file cannot be read or holds anything else.
    """
    return _list(read_text(path), path)


def read_rows(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """The objects of a JSON list or of JSON lines, each with the words that say where it stands.

    Raises
    ------
    InputError
        When the file cannot be read, holds anything else, or nothing.
    """
    text = read_text(path)
    if text.lstrip().startswith("{"):
        found = [(f"{path}, line {number}", row) for number, row in json_lines(text, str(path))]
    else:
        found = [(f"{path}, entry {number}", row) for number, row in enumerate(_list(text, path))]
    if not found:
        raise InputError(f"{path} holds no entries")
    return found


def _list(text: str, path: Path) -> list[dict[str, Any]]:
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:  # malformed, too deep, or a number of thousands of digits
        raise InputError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path} is not a list of objects")
    return rows


def text_of(row: Mapping[str, Any], name: str) -> str:
    """A field that is a string and not blank."""
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{name!r} must be a string that is not blank, but {_found(row, name)}")
    return value


def list_of(row: Mapping[str, Any], name: str) -> list[Any]:
    """A field that is a list, empty or not."""
    value = row.get(name)
    if not isinstance(value, list):
        raise InputError(f"{name!r} must be a list, but {_found(row, name)}")
    return value


def id_of(row: Mapping[str, Any], name: str) -> str:
    """A field that names something: a string that is not blank, or a number."""
    return as_id(row.get(name), name, _found(row, name))


def title_of(row: Mapping[str, Any]) -> str | None:
    """The field `title`, None where it is missing or blank."""
    value = row.get("title")
    return None if value is None or (isinstance(value, str) and not value.strip()) else as_id(value, "title")


def as_id(value: object, name: str, found: str = "") -> str:
    """A value that names something, as a string; `name` and `found` are for the error."""
    if isinstance(value, str) and value.strip():
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and math.isfinite(value):
        return str(value)
    raise InputError(f"{name!r} must be a string that is not blank, or a number, but {found or _kind(value)}")


def _found(row: Mapping[str, Any], name: str) -> str:
    return _kind(row[name]) if name in row else "it is missing"


def _kind(value: object) -> str:
    if isinstance(value, str):
        return "it is blank"
    if isinstance(value, float) and not math.isfinite(value):
        return "it is not finite"
    return f"it is of type {type(value).__name__}"


def grouped(sets: Sequence[CandidateSet]) -> list[CandidateSet]:
    """Candidate sets over equal documents made to share one tuple and to follow each other, by first appearance."""
    groups: dict[tuple[Document, ...], list[CandidateSet]] = {}
    for given in sets:
        group = groups.setdefault(given.documents, [])
        group.append(replace(given, documents=group[0].documents) if group else given)
    return [given for group in groups.values() for given in group]
