"""Dialect: what a file of this package gives, and what its endpoints use to get a job done."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, cast

from fastapi import APIRouter, Depends, Request, Response
from fastapi.exceptions import HTTPException
from fastapi.routing import APIRoute
from pydantic_core import from_json

from qr_core.server.answers import ErrorBody, ErrorShape
from qr_core.server.jobs import Job
from qr_core.server.record import Record
from qr_core.server.service import Service

T = TypeVar("T")


class _Strict(Request):
    """A request whose JSON is read by pydantic's parser: bounded in depth, no NaN, no lone surrogates."""

    async def json(self) -> Any:
        try:
            return from_json(await self.body(), allow_inf_nan=False)
        except ValueError as error:  # its message tells where, not what
            raise HTTPException(422, f"body: not valid JSON: {error}") from None


class _StrictRoute(APIRoute):
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handle(_Strict(request.scope, request.receive))

        return strict


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
