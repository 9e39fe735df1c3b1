"""Record: what is known of one request, for its answer, its log line and the metrics. Holds no text."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from starlette.types import Scope

if TYPE_CHECKING:
    from qr_core.server.answers import ErrorShape

KEY = "qrhead"


def path_of(scope: Scope) -> str:
    """A request's path below where the application is mounted."""
    return cast(str, scope["path"]).removeprefix(scope.get("root_path", ""))


@dataclass
class Record:
    """One request.

    Attributes
    ----------
    endpoint : str
        Its path if there is such an endpoint, else `other`: paths are the client's text.
    error_body : type
        How an error is written for its client.
    id : str
        Stands in the answer, in its `x-request-id` and in the log.
    arrived : float
        On the monotonic clock.
    client : str, optional
        The holder of the key that came with it.
    peer : str
        The address it came from.
    status : int
        Of the answer; 499 when the client disconnected before it.
    body_bytes, documents, tokens : int
    held : int
        Bytes of its body and its answer that are held.
    body_read : bool
        Whether all of the body was received.
    queued, scored : float, optional
        Seconds it waited for its turn, and seconds its turn took.
    """

    endpoint: str
    method: str
    error_body: type[ErrorShape]
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    arrived: float = field(default_factory=time.monotonic)
    client: str | None = None
    peer: str = ""
    status: int = 499
    body_bytes: int = 0
    held: int = 0
    body_read: bool = False
    documents: int = 0
    tokens: int = 0
    queued: float | None = None
    scored: float | None = None

    @classmethod
    def begin(cls, scope: Scope, endpoints: Mapping[str, type[ErrorShape]], otherwise: type[ErrorShape]) -> Record:
        """A new record, kept in the request's scope.

        Parameters
        ----------
        scope : dict
        endpoints : mapping of str to type
            For the path of every endpoint, how its errors are written.
        otherwise : type
            How they are written for all other paths.
        """
        path = path_of(scope)
        known = path in endpoints
        record = cls(path if known else "other", scope["method"] if known else "other", endpoints.get(path, otherwise))
        record.peer = str((scope.get("client") or ("",))[0])
        scope[KEY] = record
        return record

    @property
    def holder(self) -> tuple[bool, str]:
        """Whose request it is, for shares: the client by its key, or where there are no keys the address."""
        return (True, self.client) if self.client is not None else (False, self.peer)

    @staticmethod
    def of(scope: Scope) -> Record:
        """The record of the request that `scope` belongs to."""
        return cast(Record, scope[KEY])
