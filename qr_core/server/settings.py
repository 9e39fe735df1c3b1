"""Settings: what the server allows, and how long it waits.

Knows nothing of HTTP or of models.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from qr_core.checks import check_one_of, check_whole_number
from qr_core.errors import InputError
from qr_core.server.auth import ApiKeys
from qr_core.types import Order


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
        Largest sum of all bodies that are being read or wait for their turn; more is refused with 429.
    max_documents : int
        Most documents of a request; more are refused with 422.
    max_tokens : int
        Most tokens of a request, query, titles and texts together; more are refused with 422.
    max_queue : int
        Most requests that wait for their turn; more are refused with 429.
    max_connections : int
        Most connections; more are refused with 503.
    body_timeout : float
        Seconds for a client to send its request, and to take in its answer.
    request_timeout : float
        Seconds from a request's arrival until it is given up, with 503 while it waits and 504 while it is scored.
    grace : float
        Seconds to finish what was accepted, once told to stop.
    order : str
        Where the first document stands in the prompt, unless the request says so: see `QRScorer.rank`.

    Raises
    ------
    InputError
        Naming the one at fault.
    """

    keys: ApiKeys = field(default_factory=ApiKeys)
    max_body_bytes: int = 8 * 2**20
    max_buffered_bytes: int = 128 * 2**20
    max_documents: int = 1000
    max_tokens: int = 131_072
    max_queue: int = 64
    max_connections: int = 1024
    body_timeout: float = 30.0
    request_timeout: float = 60.0
    grace: float = 30.0
    order: Order = "given"

    def __post_init__(self) -> None:
        for name in ("max_body_bytes", "max_buffered_bytes", "max_documents", "max_tokens", "max_connections"):
            check_whole_number(name, getattr(self, name))
        check_whole_number("max_queue", self.max_queue)
        for name in ("body_timeout", "request_timeout", "grace"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise InputError(f"{name} is {value!r}: use a number of seconds above 0")
        if self.max_buffered_bytes < self.max_body_bytes:
            raise InputError(
                f"max_buffered_bytes is {self.max_buffered_bytes}, less than the {self.max_body_bytes} of one body"
            )
        check_one_of("order", self.order, Order)
