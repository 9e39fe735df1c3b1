"""Store: documents' keys and values in memory, each held once: on its own, or within a prefix joined of several.

What a joined prefix holds of a document is a view of it. Bounded in bytes; out goes what was not used for longest, a
joined prefix with all its documents. Not safe to share between threads by itself.

Knows nothing of text or models.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from cachetools import LRUCache

from qr_core.attention.prefix import Prefix, RoomyPrefix


@dataclass(frozen=True)
class Held:
    """Memory, and the documents in it: one, or all those of a joined prefix."""

    documents: Mapping[str, Prefix]
    prefix: Prefix


class Store(LRUCache[Hashable, Held]):
    """Holds by key: a document's own, or owner and documents of a joined prefix.

    Attributes
    ----------
    homes : dict of str to hashable
        For each document, the key of what holds it.
    """

    def __init__(self, max_bytes: int) -> None:
        super().__init__(max_bytes, getsizeof=lambda held: held.prefix.bytes)
        self.homes: dict[str, Hashable] = {}

    def popitem(self) -> tuple[Hashable, Held]:
        """Let go of what was not used for longest."""
        key, held = super().popitem()
        for document in held.documents:
            del self.homes[document]
        return key, held

    def find(self, document: str) -> Prefix | None:
        """A document's keys and values, wherever they are held."""
        return self[self.homes[document]].documents[document] if document in self.homes else None

    def add(self, document: str, states: Prefix) -> None:
        """Hold a document on its own, unless it is here already, or larger than the bound."""
        if document not in self.homes and states.bytes <= self.maxsize:
            self[document] = Held({document: states}, states)
            self.homes[document] = document

    def joined(self, owner: Hashable, documents: Sequence[str]) -> RoomyPrefix | None:
        """What was joined for this owner of just these documents."""
        held = self.get((owner, *documents))
        return held.prefix if held is not None and isinstance(held.prefix, RoomyPrefix) else None

    def add_joined(
        self, owner: Hashable, documents: Sequence[str], spans: Sequence[tuple[int, int]], prefix: RoomyPrefix
    ) -> bool:
        """Hold documents within `prefix` from now on; whether there is room for it.

        Parameters
        ----------
        spans : sequence of (int, int)
            Half-open token positions of each document in `prefix`.
        """
        if prefix.bytes > self.maxsize:
            return False
        known: dict[str, Prefix] = {}
        for document, (start, end) in zip(documents, spans, strict=True):
            known.setdefault(document, prefix.part(start, end))
        for home in {self.homes[document] for document in known if document in self.homes}:
            self._leave(home, known)
        key = (owner, *documents)
        self[key] = Held(known, prefix)
        self.homes |= dict.fromkeys(known, key)
        return True

    def part(self) -> None:
        """Hold every document on its own again."""
        for home in [home for home, held in self.items() if isinstance(held.prefix, RoomyPrefix)]:
            self._leave(home, {})

    def _leave(self, home: Hashable, moved: Mapping[str, Prefix]) -> None:
        """Let go of what is held at `home`; its documents that do not move elsewhere get memory of their own."""
        held = self.pop(home)
        for document in held.documents:
            del self.homes[document]
        for document, states in held.documents.items():
            if document not in moved:
                self.add(document, states.copied())
