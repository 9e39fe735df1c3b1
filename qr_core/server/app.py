"""App: the endpoints, and `create_app`, which puts all layers together.

    observe (one answer, one log line) -> gate (keys) -> limits (body) -> endpoint -> service -> queue -> scorer

Knows nothing of sockets or signals: `qrhead serve` runs it, and any ASGI server can.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, cast

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import HTTPException, RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from pydantic_core import from_json
from starlette.exceptions import HTTPException as StarletteHTTPException

from qr_core.scorer import QRScorer
from qr_core.server.answers import ErrorBody, Refusal, invalid
from qr_core.server.auth import Gate
from qr_core.server.limits import Limits
from qr_core.server.metrics import CONTENT_TYPE
from qr_core.server.observe import Observe
from qr_core.server.record import Record
from qr_core.server.schemas import (
    ApiVersion,
    KeptSpan,
    KeptText,
    Meta,
    PruneRequest,
    PruneResponse,
    RankedDocument,
    RerankRequest,
    RerankResponse,
    RerankResult,
    Status,
    TeiRank,
    TeiRequest,
    Usage,
    documents_of,
)
from qr_core.server.service import Service
from qr_core.server.settings import Settings
from qr_core.types import Document
from qr_core.version import __version__

REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": about}
    for status, about in (
        (401, "No key, or an unknown one."),
        (408, "The body came too slowly."),
        (413, "The body is too large."),
        (415, "Not plain JSON."),
        (422, "The body does not fit; the message names the field."),
        (429, "Too much waits already; see Retry-After."),
        (500, "An error of the server, logged under the id."),
        (503, "No turn in time, or the server stops."),
        (504, "Not finished in time."),
    )
}


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


bearer = HTTPBearer(auto_error=False, description="An API key, where the server has any.")
scoring = APIRouter(route_class=_StrictRoute, dependencies=[Depends(bearer)], responses=REFUSALS)
about = APIRouter()


def _service(request: Request) -> Service:
    return cast(Service, request.app.state.service)


async def _rerank(request: Request, body: RerankRequest, version: str) -> RerankResponse:
    service, record = _service(request), Record.of(request.scope)
    documents = documents_of(body.documents, body.rank_fields is None or "title" in body.rank_fields)
    ranking = await service.rank(record, body.query, documents, top_k=body.top_n, order=body.order)
    results = [RerankResult(index=hit.index, relevance_score=hit.relevance) for hit in ranking]
    if body.return_documents:
        for result in results:
            sent = body.documents[result.index]
            fields = {"text": sent} if isinstance(sent, str) else sent.model_dump()
            result.document = RankedDocument(**fields)
    return RerankResponse(
        id=record.id,
        model=service.model_name,
        results=results,
        meta=Meta(api_version=ApiVersion(version=version), windows=ranking.windows, rounds=ranking.rounds),
        usage=Usage(total_tokens=record.tokens),
    )


@scoring.post("/v1/rerank", response_model_exclude_none=True)
async def rerank_v1(request: Request, body: RerankRequest) -> RerankResponse:
    """Rank documents, as Cohere's first API and Jina's do."""
    return await _rerank(request, body, "1")


@scoring.post("/v2/rerank", response_model_exclude_none=True)
async def rerank_v2(request: Request, body: RerankRequest) -> RerankResponse:
    """Rank documents, as Cohere's second API does."""
    return await _rerank(request, body, "2")


@scoring.post("/rerank", response_model_exclude_none=True)
async def rerank(request: Request, body: TeiRequest) -> list[TeiRank]:
    """Rank texts, as Text Embeddings Inference does."""
    documents = [Document(text) for text in body.texts]
    ranking = await _service(request).rank(Record.of(request.scope), body.query, documents, top_k=None, order=None)
    return [
        TeiRank(
            index=hit.index,
            score=hit.score if body.raw_scores else hit.relevance,
            text=hit.document.text if body.return_text else None,
        )
        for hit in ranking
    ]


@scoring.post("/v1/prune")
async def prune(request: Request, body: PruneRequest) -> PruneResponse:
    """Keep the parts of a text, or of documents, that matter for a query."""
    service, record = _service(request), Record.of(request.scope)
    pruned = await service.prune(
        record,
        body.query,
        documents_of(body.documents) if body.text is None else body.text,
        order=body.order,
        **body.model_dump(exclude={"query", "text", "documents", "order"}),
    )
    return PruneResponse(
        id=record.id,
        model=service.model_name,
        text=pruned.text,
        texts=[KeptText(index=index, text=text) for index, text in pruned.texts],
        spans=[KeptSpan(**span) for span in pruned.to_dict()["spans"]],
        kept_tokens=pruned.kept_tokens,
        total_tokens=pruned.total_tokens,
        windows=pruned.windows,
    )


@about.get("/health")
async def health(request: Request) -> Status:
    """Whether the process answers at all."""
    return Status(status="ok", model=_service(request).model_name)


@about.get("/ready", responses={503: {"model": Status}})
async def ready(request: Request, response: Response) -> Status:
    """Whether the model is loaded and requests are taken."""
    service = _service(request)
    if not service.ready:
        response.status_code = 503
    if service.draining:
        return Status(status="stopping", model=service.model_name)
    return Status(status="ready" if service.ready else service.state, model=service.model_name)


@about.get(
    "/metrics",
    response_class=Response,
    dependencies=[Depends(bearer)],
    responses={200: {"content": {"text/plain": {}}}, 401: REFUSALS[401]},
)
async def metrics(request: Request) -> Response:
    """Metrics in Prometheus' format."""
    return Response(_service(request).metrics.render(), media_type=CONTENT_TYPE)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    return invalid(cast(RequestValidationError, error).errors()).response(Record.of(request.scope).id)


async def _http(request: Request, error: Exception) -> JSONResponse:
    found = cast(StarletteHTTPException, error)
    kind = "validation" if found.status_code == 422 else "not_found"
    return Refusal(found.status_code, kind, str(found.detail)).response(Record.of(request.scope).id, found.headers)


def create_app(scorer: QRScorer, settings: Settings | None = None) -> FastAPI:
    """An application that serves `scorer`.

    Its weights are loaded when the application starts, on its scoring thread; `/ready` tells when it is done.

    Parameters
    ----------
    scorer : QRScorer
    settings : Settings, optional
        Limits, time-outs and keys. `max_connections` and `grace` are for whoever runs the application.
    """
    service = Service(scorer, settings or Settings())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.ensure_future(service.warm_up())
        yield
        loading.cancel()
        service.queue.close()

    app = FastAPI(
        title="qrhead",
        description="Rank and prune context by the attention of a language model's query-focused heads.",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,  # the pages would fetch scripts from elsewhere
        redoc_url=None,
        exception_handlers={RequestValidationError: _invalid, StarletteHTTPException: _http},
    )
    app.state.service = service
    app.include_router(scoring)
    app.include_router(about)
    app.add_middleware(Limits, settings=service.settings, queue=service.queue)
    app.add_middleware(Gate, keys=service.settings.keys)
    app.add_middleware(Observe, service=service)  # the last one added is the outermost
    return app
