"""Answers: what a refusal looks like, the same for every endpoint, and which error becomes which.

The text of an error stands under each name that a protocol's clients look for: `message` (Cohere), `detail` (Jina),
`error` with `error_type` (Text Embeddings Inference). Knows nothing of endpoints or limits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from starlette.responses import JSONResponse

from qr_core.errors import InputError

SHOWN_ERRORS = 3
"""So many of a body's faults are named."""
TAGS = frozenset({"body", "string", "object"})
"""Parts of an error's place that are no field's name: see `schemas.DocumentIn`."""


class ErrorBody(BaseModel):
    """Why a request got no result."""

    error: str
    error_type: str
    message: str
    detail: str
    id: str


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

    def response(self, request_id: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
        """The answer."""
        body = ErrorBody(
            error=self.message, error_type=self.kind, message=self.message, detail=self.message, id=request_id
        )
        more = dict(headers or {})
        if self.retry_after is not None:
            more["retry-after"] = str(max(1, math.ceil(self.retry_after)))
        if self.status == 401:
            more["www-authenticate"] = "Bearer"
        return JSONResponse(body.model_dump(), self.status, more)


def refusal_of(error: Exception, request_id: str) -> Refusal:
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
