"""Document cache: keys and values of documents that were encoded on their own, for use beside any others.

In memory, bounded by bytes, the least recently used dropped first; with a folder, on disk as well (see
`qr_core.cache.folder`). Safe to share between threads and between scorers: a key says which model, depth, dtype,
instruction and document an entry is of.

Knows nothing of text or models: a document is its token ids, an entry is a `Prefix`.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Hashable, Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np

from qr_core.attention.prefix import Prefix, RoomyPrefix, joined
from qr_core.cache.folder import FOLDER_BYTES, DocumentFolder
from qr_core.cache.store import Store
from qr_core.checks import check_whole_number
from qr_core.partition import PartitionedCache, current_partition

KEPT_BYTES = 2**30
KEY_VERSION = 1
"""Of what goes into a key; a new one makes all earlier entries unreachable."""


class Keys:
    """Keys of documents that share everything but their own tokens.

    Parameters
    ----------
    kind : str
        How they are encoded, and what of them is kept.
    model : str
        See `qr_core.model.fingerprint`.
    deepest : int
        Last layer whose keys and values are kept.
    instruction : sequence of int
        Token ids that every document follows.
    regime : hashable
        See `qr_core.attention.rope.regime`.
    lasting : bool
        Whether keys mean anything to another process.
    """

    def __init__(
        self, kind: str, model: str, deepest: int, instruction: Sequence[int], regime: Hashable, lasting: bool
    ) -> None:
        self.lasting = lasting
        about = [KEY_VERSION, kind, model, deepest, list(instruction), repr(regime)]
        self._base = hashlib.sha256(json.dumps(about).encode())

    def of(self, ids: Sequence[int]) -> str:
        """The key of a document's token ids: 64 hexadecimal digits, from which no id can be read."""
        digest = self._base.copy()
        digest.update(np.asarray(ids, dtype="<i8").tobytes())
        return digest.hexdigest()


class DocumentCache(PartitionedCache):
    """Keeps documents' keys and values.

    Parameters
    ----------
    max_bytes : int
        Of memory, where the model's weights are; 0 keeps nothing in memory.
    folder : str or Path, optional
        Keep them on disk as well. Made, for its owner alone, if missing. Keys and values can be turned back into
        text to a good part: treat the folder as you treat the documents.
    folder_bytes : int
        Most that the folder may hold; the entries that were used longest ago go first.

    Raises
    ------
    InputError
        When a number is out of range, or the folder is a link, no folder, or open to other users.
    """

    def __init__(
        self, max_bytes: int = KEPT_BYTES, folder: str | Path | None = None, folder_bytes: int = FOLDER_BYTES
    ) -> None:
        check_whole_number("max_bytes", max_bytes, least=0)
        self.max_bytes = max_bytes
        self.folder = None if folder is None else DocumentFolder(folder, folder_bytes)
        self._store = Store(max_bytes)
        self._lock = threading.Lock()
        super().__init__()

    @property
    def bytes(self) -> int:
        """Memory that documents take."""
        return int(self._store.currsize)

    def get(self, wanted: Mapping[str, int], like: Prefix, shared: bool = True) -> dict[str, Prefix]:
        """The documents that are there.

        Parameters
        ----------
        wanted : mapping of str to int
            Keys, and how many tokens each document has.
        like : Prefix
            Of the same model: entries on disk must have its layers, shapes, dtypes; they are put on its devices.
        shared : bool
            Whether to look on disk too.
        """
        with self._lock:
            found = {key: kept for key in wanted if (kept := self._store.find(self.own(key))) is not None}
        if self.folder is not None and shared:
            read = {}
            for key, tokens in wanted.items():
                if key not in found and (entry := self.folder.get(self.own(key), like, tokens)) is not None:
                    read[key] = entry
            self._keep(read)
            found |= read
        self.hits += len(found)
        return found

    def put(self, entries: Mapping[str, Prefix], shared: bool = True) -> None:
        """Keep `entries`; on disk too if they are `shared`."""
        self._keep(entries)
        if self.folder is not None and shared:
            self.folder.put({self.own(key): entry for key, entry in entries.items()})

    def joined(self, owner: Hashable, keys: Sequence[str]) -> RoomyPrefix | None:
        """What was joined for this owner of just these documents, if it is still there."""
        with self._lock:
            found = self._store.joined(owner, [self.own(key) for key in keys])
        self.hits += found is not None
        return found

    def join(
        self, owner: Hashable, lead: Prefix, keys: Sequence[str], states: Mapping[str, Prefix], room: int
    ) -> tuple[RoomyPrefix, bool]:
        """`lead` and documents in one prefix, in the order of `keys`; from then on it holds what is kept of them.

        Parameters
        ----------
        owner : hashable
            Who may run queries over it: one at a time, since they write to its room.
        states : mapping of str to Prefix
            Every document's keys and values.
        room : int
            Tokens for a query.

        Returns
        -------
        tuple of (RoomyPrefix, bool)
            And whether it is kept.
        """
        own = [self.own(key) for key in keys]
        prefix = joined([lead, *(states[key] for key in keys)], room)
        ends = list(accumulate((states[key].length for key in keys), initial=lead.length))
        with self._lock:
            return prefix, self._store.add_joined(owner, own, list(pairwise(ends)), prefix)

    def part(self) -> None:
        """Keep every document on its own again."""
        with self._lock:
            self._store.part()

    def clear(self) -> None:
        """Forget what is in memory."""
        with self._lock:
            self._store = Store(self.max_bytes)

    def __len__(self) -> int:
        return len(self._store.homes)

    def _keep(self, entries: Mapping[str, Prefix]) -> None:
        with self._lock:
            for key, entry in entries.items():
                self._store.add(self.own(key), entry)

    def own(self, key: Hashable) -> str:
        """The key under which the running partition knows a document: 64 hexadecimal digits too, on disk as well."""
        partition = current_partition()
        return str(key) if partition is None else hashlib.sha256(f"{key} {partition!r}".encode()).hexdigest()

    def after_fork(self) -> None:
        """Keep what no other thread was changing."""
        if self._lock.locked():
            self._store = Store(self.max_bytes)
        self._lock = threading.Lock()


SHARED_DOCUMENTS = DocumentCache()
"""The process's: every scorer's, unless it has its own or none."""
