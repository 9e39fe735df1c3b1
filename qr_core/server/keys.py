"""Keys: which clients may ask.

API keys are kept as digests, compared in constant time, and never stand in an error, a log line or a `repr`.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from qr_core.errors import InputError
from qr_core.files.inputs import read_text

KEYS_VARIABLE = "QRHEAD_API_KEYS"


class ApiKeys:
    """Keys and the names of the clients that hold them. One client may hold several, so that keys can be changed.

    Parameters
    ----------
    keys : iterable of (str, str)
        Pairs of a client's name and a key.

    Raises
    ------
    InputError
        When one key has two names: whose it is could not be told.
    """

    def __init__(self, keys: Iterable[tuple[str, str]] = ()) -> None:
        names: dict[bytes, str] = {}
        for name, key in keys:
            if names.setdefault(_digest(key.encode()), name) != name:
                raise InputError(f"client {name!r} has the same API key as another: give each client keys of its own")
        self._digests = tuple((name, digest) for digest, name in names.items())

    def __repr__(self) -> str:
        return f"ApiKeys({len(self)})"

    def __len__(self) -> int:
        return len(self._digests)

    @classmethod
    def parse(cls, text: str, origin: str) -> ApiKeys:
        """Keys from lines `KEY` or `NAME KEY`; blank lines and those that begin with `#` are skipped.

        Keys without a name are those of `client-1`, `client-2`, ..., each of another client.

        Raises
        ------
        InputError
            Naming the line at fault, but no key; when there is no key at all; and when two clients cannot be told
            apart.
        """
        return cls(_named({origin: _lines(text, origin)}))

    @classmethod
    def load(cls, file: Path | None = None, environment: Mapping[str, str] = os.environ) -> ApiKeys:
        """Keys of a file and of the environment variable `QRHEAD_API_KEYS` (commas or line ends between them).

        Raises
        ------
        InputError
            When the file cannot be read, either is given and holds no key, or two clients cannot be told apart.
        """
        found = {}
        if file is not None:
            found[str(file)] = _lines(read_text(file), str(file))
        if KEYS_VARIABLE in environment:
            found[KEYS_VARIABLE] = _lines(environment[KEYS_VARIABLE].replace(",", "\n"), KEYS_VARIABLE)
        return cls(_named(found))

    def client(self, authorization: bytes) -> str | None:
        """The client whose key a header `Authorization: Bearer KEY` holds; None when there is none.

        The bare key does as well: some clients of Text Embeddings Inference send it so.
        """
        key = authorization[7:] if authorization[:7].lower() == b"bearer " else authorization
        offered = _digest(key.strip())
        holder = None
        for name, digest in self._digests:  # all of them, so that the time taken tells nothing
            if hmac.compare_digest(digest, offered):
                holder = name
        return holder


def _lines(text: str, origin: str) -> list[tuple[str | None, str]]:
    """Names, where there are some, and keys of one source."""
    keys: list[tuple[str | None, str]] = []
    for number, line in enumerate(text.split("\n"), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) > 2:
            raise InputError(f"{origin}, line {number}: expected KEY or NAME KEY")
        keys.append((words[0] if len(words) == 2 else None, words[-1]))
    if not keys:
        raise InputError(f"{origin} holds no API key")
    return keys


def _named(sources: Mapping[str, list[tuple[str | None, str]]]) -> list[tuple[str, str]]:
    """Keys with names that no two clients share, whichever sources they come from."""
    found: list[tuple[str, str]] = []
    owners: dict[str, str] = {}
    for origin, keys in sources.items():
        for name in sorted({name for name, _ in keys if name is not None}):
            if name in owners:
                raise InputError(f"{owners[name]} and {origin} both have a client {name!r}: rename one of them")
            owners[name] = origin
        found += [(name, key) for name, key in keys if name is not None]
    known = {key for _, key in found}
    unnamed = dict.fromkeys(key for keys in sources.values() for name, key in keys if name is None)
    for number, key in enumerate((key for key in unnamed if key not in known), start=1):
        if (name := f"client-{number}") in owners:
            raise InputError(f"{owners[name]} names a client {name!r}, as keys without a name are called: rename it")
        found.append((name, key))
    return found


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
