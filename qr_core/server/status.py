"""Status: the endpoints that tell about the server itself."""

from __future__ import annotations

from typing import Literal, cast

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel

from qr_core.server.answers import ErrorBody, refusals
from qr_core.server.auth import bearer
from qr_core.server.metrics import CONTENT_TYPE
from qr_core.server.service import Service

router = APIRouter()
PATHS = ("/health", "/ready", "/metrics", "/openapi.json")


class Status(BaseModel):
    """Whether the server lives, or is ready."""

    status: Literal["ok", "ready", "loading", "loaded", "failed", "stopping"]
    model: str


def _service(request: Request) -> Service:
    return cast(Service, request.app.state.service)


@router.get("/health")
async def health(request: Request) -> Status:
    """Whether the process answers at all."""
    return Status(status="ok", model=_service(request).model_name)


@router.get("/ready", responses={503: {"model": Status}})
async def ready(request: Request, response: Response) -> Status:
    """Whether the model is loaded and requests are taken."""
    service = _service(request)
    if not service.ready:
        response.status_code = 503
    if service.draining:
        return Status(status="stopping", model=service.model_name)
    return Status(status="ready" if service.ready else service.state, model=service.model_name)


@router.get(
    "/metrics",
    response_class=Response,
    dependencies=[Depends(bearer)],
    responses={200: {"content": {"text/plain": {}}}, **refusals(ErrorBody, 401)},
)
async def metrics(request: Request) -> Response:
    """Metrics in Prometheus' format."""
    return Response(_service(request).metrics.render(), media_type=CONTENT_TYPE)
