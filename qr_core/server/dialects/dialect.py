"""Dialect: what a file of this package gives, and what its endpoints use to get a job done."""

from __future__ import annotations

from asyncio import get_running_loop
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, TypeVar, cast

from fastapi import APIRouter, Depends, Request, Response
from fastapi.exceptions import HTTPException, RequestValidationError
from fastapi.routing import APIRoute
from pydantic import ValidationError
from pydantic_core import from_json

from qr_core.server.answers import ErrorBody, ErrorShape
from qr_core.server.dialects.fields import MAX_DOCUMENTS, Body
from qr_core.server.jobs import Job
from qr_core.server.record import Record
from qr_core.server.service import Service

T = TypeVar("T")


SMALL_BODY = 2**14
"""Bytes that are parsed where they are; more would keep other requests waiting, and are parsed on a thread."""


class _Parsed(Request):
    """A request whose body has been read."""

    value: Any

    async def json(self) -> Any:
        return self.value


class _StrictRoute(APIRoute):
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        model = self.body_field.field_info.annotation if self.body_field else None
        if not (isinstance(model, type) and issubclass(model, Body)):
            raise TypeError(f"{self.path}: the body's type is {model!r}: use a subclass of Body")

        async def strict(request: Request) -> Response:
            body = await request.body()
            parsed = _Parsed(request.scope, request.receive)
            parsed._body = body  # or it would wait for it once more
            if body:
                service = cast(Service, request.app.state.service)
                read = partial(read_body, model, body, service.settings.max_documents)
                large = len(body) > SMALL_BODY
                parsed.value = await get_running_loop().run_in_executor(service.parser, read) if large else read()
            return await handle(parsed)

        return strict


def read_body(model: type[Body], body: bytes, max_documents: int) -> Body:
    """Strict JSON, read by pydantic's parser: bounded in depth, no NaN, no lone surrogates; then validated.

    Raises
    ------
    HTTPException
        When it is not JSON.
    RequestValidationError
        When it does not fit the model.
    Refusal
        422, when there are more than `max_documents`.
    """
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError as error:  # its message tells where, not what
        raise HTTPException(422, f"body: not valid JSON: {error}") from None
    try:
        return model.model_validate(value, context={MAX_DOCUMENTS: max_documents})
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        raise RequestValidationError([{**fault, "loc": ("body", *fault["loc"])} for fault in faults]) from None


def new_router() -> APIRouter:
    """A router whose endpoints read only strict JSON."""
    return APIRouter(route_class=_StrictRoute)


@dataclass(frozen=True)
class Dialect:
    """One way in which clients ask.

    Attributes
    ----------
    router : APIRouter
        Its endpoints, from `new_router`. An endpoint takes a validated body, asks for a job, and makes the answer of
        the result. Their paths have no parameters, so that they can be names in logs and metrics.
    error_body : type
        A pydantic model of what its clients look for in an error.
    """

    router: APIRouter
    error_body: type[ErrorShape] = ErrorBody

    @property
    def paths(self) -> list[str]:
        """Its endpoints' paths."""
        return [route.path for route in self.router.routes if isinstance(route, APIRoute)]


@dataclass(frozen=True)
class Asking:
    """The service, for one request: an endpoint calls it with a job."""

    service: Service
    record: Record

    async def __call__(self, job: Job[T]) -> T:
        """Wait for a turn, do the job, and give its result."""
        return await self.service.run(self.record, job)

    @property
    def id(self) -> str:
        """The request's id."""
        return self.record.id

    @property
    def model(self) -> str:
        """Name of the model that scores."""
        return self.service.model_name

    @property
    def tokens(self) -> int:
        """Of query and documents, once the job is done."""
        return self.record.tokens


def _asking(request: Request) -> Asking:
    return Asking(cast(Service, request.app.state.service), Record.of(request.scope))


Ask = Annotated[Asking, Depends(_asking)]
"""Annotation of the parameter by which an endpoint gets its `Asking`."""
