"""Answers: what a refusal is, which error becomes which, and how one is written where no dialect says otherwise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from pydantic import BaseModel
from starlette.responses import JSONResponse

from qr_core.errors import InputError
from qr_core.server.record import Record

SHOWN_ERRORS = 3
"""At most this many of a body's faults are named."""
TAGS = frozenset({"body", "string", "object"})
"""Parts of an error's place that are no field's name: see `qr_core.server.dialects.fields`."""


class Refusal(Exception):  # noqa: N818 - an answer, not a failure
    """Raised anywhere to end a request with this status.

    Parameters
    ----------
    status : int
    kind : str
        One word for programs.
    message : str
        One line for people.
    retry_after : float, optional
        Seconds after which it is worth trying again.
    """

    def __init__(self, status: int, kind: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message
        self.retry_after = retry_after

    def response(self, record: Record, headers: Mapping[str, str] | None = None) -> JSONResponse:
        """The answer, written as the clients of the request's dialect expect."""
        body = record.error_body.of(self, record.id)
        more = dict(headers or {})
        if self.retry_after is not None:
            more["retry-after"] = str(max(1, math.ceil(self.retry_after)))
        if self.status == 401:
            more["www-authenticate"] = "Bearer"
        return JSONResponse(body.model_dump(), self.status, more)


class ErrorShape(Protocol):
    """A pydantic model that says how a dialect writes its errors."""

    @classmethod
    def of(cls, refusal: Refusal, request_id: str) -> BaseModel:
        """The body of the answer."""


class ErrorBody(BaseModel):
    """Why a request got no result."""

    error: str
    error_type: str
    message: str
    detail: str
    id: str

    @classmethod
    def of(cls, refusal: Refusal, request_id: str) -> ErrorBody:
        """The message under each name that clients look for.

        These are `message` (Cohere), `detail` (Jina), and `error` with `error_type` (Text Embeddings Inference).
        """
        text = refusal.message
        return cls(error=text, error_type=refusal.kind, message=text, detail=text, id=request_id)


REFUSALS: dict[int, str] = {
    401: "No key, or an unknown one.",
    403: "Asked under a foreign name, or from another site's page.",
    408: "The body came too slowly.",
    413: "The body is too large.",
    415: "Not plain JSON.",
    422: "The body does not fit; the message names the field.",
    429: "Too many requests are waiting; see Retry-After.",
    500: "An error of the server, logged under the id.",
    503: "No turn in time, or the server stops.",
    504: "Not finished in time.",
}


def refusals(shape: type[ErrorShape], *statuses: int) -> dict[int | str, dict[str, Any]]:
    """What OpenAPI says of `statuses`, by default of all that a POST may be refused with."""
    return {status: {"model": shape, "description": REFUSALS[status]} for status in statuses or REFUSALS}


def refusal_of(error: BaseException, request_id: str) -> Refusal:
    """What a client is told of an error: all of it when the request is at fault, nothing but an id when it is not."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, InputError):
        return Refusal(422, "validation", str(error))
    return Refusal(500, "backend", f"internal error {request_id}: the server's log says more")


def invalid(errors: Sequence[Mapping[str, Any]]) -> Refusal:
    """Name the fields that pydantic found at fault, without what stands in them."""
    named = []
    for error in errors[:SHOWN_ERRORS]:
        place = ".".join(str(part) for part in error["loc"] if part not in TAGS)
        named.append(f"{place or 'body'}: {error['msg']}")
    more = f"; and {len(errors) - SHOWN_ERRORS} more" if len(errors) > SHOWN_ERRORS else ""
    return Refusal(422, "validation", "; ".join(named) + more)
