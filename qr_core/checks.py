"""Checks: what callers hand in is usable, or one clear error names it and the fix."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

from qr_core.display.wording import encodable as encodable
from qr_core.errors import InputError
from qr_core.types import Document, DocumentLike, as_document


def check_whole_number(name: str, value: object, least: int = 1) -> None:
    """Refuse anything but None and whole numbers from `least`."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
        raise InputError(f"{name} is {value!r}: use a whole number from {least}, or None")


def check_share(name: str, value: object) -> None:
    """Refuse anything but numbers from 0 to 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:  # NaN is neither
        raise InputError(f"{name} is {value!r}: use a number from 0 to 1")


LONGEST_ELLIPSIS = 100
"""Characters: it is repeated for every gap, so that a longer one could make of any text one many times its size."""


def check_ellipsis(name: str, value: object) -> None:
    """Refuse anything but None and a short string."""
    if value is not None and not isinstance(value, str):
        raise InputError(f"{name} is of type {type(value).__name__}: pass a str, such as '[...]', or None")
    if value is not None and len(value) > LONGEST_ELLIPSIS:
        raise InputError(f"{name} has {len(value)} characters: use at most {LONGEST_ELLIPSIS}, such as '[...]'")


def check_one_of(name: str, value: object, known: Any) -> None:
    """Refuse a value that the `Literal` type `known` does not list."""
    if value not in get_args(known):
        raise InputError(f"{name} is {value!r}: use one of {', '.join(get_args(known))}")


def checked_query(query: str) -> str:
    """A query that is a string and not blank."""
    if not isinstance(query, str):
        raise InputError(f"the query is of type {type(query).__name__}: pass a str")
    if not query.strip():
        raise InputError("the query is empty: pass a question or a statement to look for")
    return query


def checked_jobs(jobs: Iterable[tuple[str, Iterable[DocumentLike]]]) -> list[tuple[str, list[Document]]]:
    """Jobs as pairs of a query and a list of documents."""
    if isinstance(jobs, str | bytes | Mapping) or not isinstance(jobs, Iterable):
        raise InputError(f"jobs are of type {type(jobs).__name__}: pass a list of (query, documents)")
    checked = []
    for number, job in enumerate(jobs):
        if not isinstance(job, Sequence) or isinstance(job, str | bytes) or len(job) != 2:
            raise InputError(f"job {number} is not a pair of query and documents")
        checked.append((checked_query(job[0]), checked_documents(job[1])))
    return checked


def checked_documents(documents: Iterable[DocumentLike]) -> list[Document]:
    """Documents as a list of `Document`."""
    if isinstance(documents, str | bytes | Mapping) or not isinstance(documents, Iterable):
        raise InputError(f"documents are of type {type(documents).__name__}: pass a list of documents")
    return [as_document(document, index) for index, document in enumerate(documents)]
