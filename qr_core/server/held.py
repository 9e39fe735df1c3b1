"""Held: how many bytes are held for clients, in all and for each. Knows nothing of where they come from or go to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable


class Held:
    """A count of bytes, within bounds.

    Parameters
    ----------
    most : int
        Of all together.
    share : int
        Of one client.
    """

    def __init__(self, most: int, share: int) -> None:
        self.most = most
        self.share = share
        self.total = 0
        self._of: Counter[Hashable] = Counter()

    def take(self, client: Hashable, size: int) -> bool:
        """Count `size` more for a client, if there is room; whether there was."""
        if self.total + size > self.most or self._of[client] + size > self.share:
            self._forget(client)
            return False
        self.total += size
        self._of[client] += size
        self._forget(client)
        return True

    def give_back(self, client: Hashable, size: int) -> None:
        """Count `size` less for a client."""
        self.total -= size
        self._of[client] -= size
        self._forget(client)

    def _forget(self, client: Hashable) -> None:
        """Whom nothing is held for."""
        if not self._of[client]:
            del self._of[client]
