"""App: `create_app`, which puts all layers together and mounts every dialect.

observe (one answer, one log line) -> hosts -> gate (keys) -> limits (body) -> dialect -> service -> queue -> scorer

Knows nothing of sockets or signals: `qrhead serve` runs it, and any ASGI server can.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from qr_core.server import status
from qr_core.server.answers import ErrorBody, ErrorShape, Refusal, invalid, refusals
from qr_core.server.auth import Gate, bearer
from qr_core.server.dialects import DIALECTS
from qr_core.server.hosts import Hosts
from qr_core.server.limits import Limits
from qr_core.server.observe import Observe
from qr_core.server.record import Record
from qr_core.server.service import Service
from qr_core.server.settings import Settings
from qr_core.version import __version__

if TYPE_CHECKING:
    from qr_core.scorer import QRScorer


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    return invalid(cast(RequestValidationError, error).errors()).response(Record.of(request.scope))


async def _http(request: Request, error: Exception) -> JSONResponse:
    found = cast(HTTPException, error)
    kind = "validation" if found.status_code == 422 else "not_found"
    return Refusal(found.status_code, kind, str(found.detail)).response(Record.of(request.scope), found.headers)


def _endpoints() -> dict[str, type[ErrorShape]]:
    """Every endpoint's path, and how its errors are written."""
    found: dict[str, type[ErrorShape]] = dict.fromkeys(status.PATHS, ErrorBody)
    for name, dialect in DIALECTS.items():
        for path in dialect.paths:
            if path in found:
                raise ValueError(f"dialect {name!r} has the path {path}, which is taken")
            found[path] = dialect.error_body
    return found


def create_app(scorer: QRScorer, settings: Settings | None = None) -> FastAPI:
    """An application that serves `scorer`.

    Its weights are loaded when the application starts, on its scoring thread; `/ready` tells when it is done.

    Parameters
    ----------
    scorer : QRScorer
    settings : Settings, optional
        Limits, time-outs and keys. `max_connections` and `grace` concern only `qrhead serve`.
    """
    service = Service(scorer, settings or Settings())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.ensure_future(service.warm_up())
        yield
        loading.cancel()
        service.queue.close()
        service.parser.shutdown(wait=False, cancel_futures=True)

    app = FastAPI(
        title="qrhead",
        description="Rank and prune context by the attention of a language model's query-focused heads.",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,  # the pages would fetch scripts from elsewhere
        redoc_url=None,
        exception_handlers={RequestValidationError: _invalid, HTTPException: _http},
    )
    app.state.service = service
    for dialect in DIALECTS.values():
        app.include_router(dialect.router, dependencies=[Depends(bearer)], responses=refusals(dialect.error_body))
    app.include_router(status.router)
    app.add_middleware(Limits, settings=service.settings, queue=service.queue)
    app.add_middleware(Gate, keys=service.settings.keys)
    app.add_middleware(Hosts, allowed=service.settings.allowed_hosts)
    app.add_middleware(Observe, service=service, endpoints=_endpoints())  # the last one added is the outermost
    return app
