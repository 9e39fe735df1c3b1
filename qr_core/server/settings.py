"""Settings: what the server allows, and how long it waits."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from qr_core.checks import check_one_of, check_whole_number
from qr_core.errors import InputError
from qr_core.fields import option
from qr_core.server.keys import ApiKeys
from qr_core.types import Order

COUNTS = ("max_body_bytes", "max_buffered_bytes", "max_documents", "max_tokens", "max_queue", "max_connections")
TIMES = ("body_timeout", "request_timeout", "grace")


@dataclass(frozen=True)
class Settings:
    """Limits and time-outs; each has a default that suits one small machine.

    Attributes
    ----------
    keys : ApiKeys
        Who may ask; without any, everyone may.
    max_body_bytes : int
        Largest request body; more is refused with 413.
    max_buffered_bytes : int
        Largest sum of all bodies and answers that are held, until clients have their answers; at most half of it, but
        one body and its answer in any case, for one client. More is refused with 429 (bodies) or 503 (answers).
    max_documents : int
        Most documents of a request; more are refused with 422.
    max_tokens : int
        Most tokens of a request, query, titles and texts together; more are refused with 422.
    max_queue : int
        Most requests that wait for their turn; more are refused with 429.
    max_connections : int
        Most connections; more are refused with 503, unless their address has fewer than another, which loses one.
    body_timeout : float
        Seconds for a client to send its request, and to receive its answer.
    request_timeout : float
        Seconds from a request's arrival until it is given up, with 503 while it waits and 504 while it is scored.
    grace : float
        Seconds to finish accepted requests, once told to stop.
    allowed_hosts : tuple of str
        Names by which the server may be asked besides `localhost` and its like, and whose pages may ask it; others are
        refused with 403. With none, any name will do on addresses that other machines can reach.
    order : str
        Where the first document stands in the prompt, unless the request says so: see `QRScorer.rank`.

    Raises
    ------
    InputError
        Naming the one at fault.
    """

    PANEL = "Server"

    keys: ApiKeys = field(default_factory=ApiKeys)  # no option: keys do not belong on a command line
    max_body_bytes: int = option(4 * 2**20, "Largest request body.")
    max_buffered_bytes: int = option(128 * 2**20, "All bodies and answers held at a time; half of it for one client.")
    max_documents: int = option(1000, "Most documents of a request.")
    max_tokens: int = option(131_072, "Most tokens of a request.")
    max_queue: int = option(64, "Most requests that wait.")
    max_connections: int = option(1024, "Most connections.")
    body_timeout: float = option(30.0, "Seconds for a client to send a request, and to receive the answer.")
    request_timeout: float = option(60.0, "Seconds until a request is given up.")
    grace: float = option(30.0, "Seconds to finish accepted requests, once told to stop.")
    allowed_hosts: tuple[str, ...] = option(
        (), "Further names by which it may be asked, and whose pages may ask it, separated by commas."
    )
    order: Order = option("given", "reversed: the first document stands nearest the query, for retrieved lists.")

    def __post_init__(self) -> None:
        for name in COUNTS:
            check_whole_number(name, getattr(self, name))
        for name in TIMES:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise InputError(f"{name} is {value!r}: use a number of seconds above 0")
        if self.max_buffered_bytes < self.max_body_bytes:
            raise InputError(
                f"max_buffered_bytes is {self.max_buffered_bytes}, less than the {self.max_body_bytes} of one body"
            )
        named: object = self.allowed_hosts
        if not isinstance(named, tuple) or not all(isinstance(one, str) for one in named):
            raise InputError(f"allowed_hosts is {self.allowed_hosts!r}: use a tuple of names, such as ('example.org',)")
        for name in self.allowed_hosts:
            if not name or set(name) & set("/:@*, "):
                raise InputError(f"allowed_hosts has {name!r}: use names without scheme and port, such as example.org")
        check_one_of("order", self.order, Order)

    @property
    def max_client_bytes(self) -> int:
        """Largest sum of bodies and answers that are held for one client."""
        return min(self.max_buffered_bytes, max(2 * self.max_body_bytes, self.max_buffered_bytes // 2))
