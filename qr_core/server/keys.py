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
    """

    def __init__(self, keys: Iterable[tuple[str, str]] = ()) -> None:
        self._digests = tuple((name, _digest(key.encode())) for name, key in keys)

    def __repr__(self) -> str:
        return f"ApiKeys({len(self)})"

    def __len__(self) -> int:
        return len(self._digests)

    @classmethod
    def parse(cls, text: str, origin: str) -> ApiKeys:
        """Keys from lines `KEY` or `NAME KEY`; blank lines and those that begin with `#` are skipped.

        Raises
        ------
        InputError
            Naming the line at fault, but nothing that stands in it; and when there is no key at all.
        """
        keys: list[tuple[str, str]] = []
        for number, line in enumerate(text.splitlines(), start=1):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            if len(words) > 2:
                raise InputError(f"{origin}, line {number}: expected KEY or NAME KEY")
            keys.append((words[0] if len(words) == 2 else f"client-{len(keys) + 1}", words[-1]))
        if not keys:
            raise InputError(f"{origin} holds no API key")
        return cls(keys)

    @classmethod
    def load(cls, file: Path | None = None, environment: Mapping[str, str] = os.environ) -> ApiKeys:
        """Keys of a file and of the environment variable `QRHEAD_API_KEYS` (commas or line ends between them).

        Raises
        ------
        InputError
            When the file cannot be read, or either is given and holds no key.
        """
        found = cls()
        if file is not None:
            found._digests += cls.parse(read_text(file), str(file))._digests
        if KEYS_VARIABLE in environment:
            found._digests += cls.parse(environment[KEYS_VARIABLE].replace(",", "\n"), KEYS_VARIABLE)._digests
        return found

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


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
