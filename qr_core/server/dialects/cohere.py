"""Cohere's first and second API; and Jina's, which has the path and the fields of Cohere's first.

Errors have the common body: Cohere's clients read `message`, Jina's `detail`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from qr_core.server.dialects.dialect import Ask, Asking, Dialect, new_router
from qr_core.server.dialects.fields import Body, Documents, Whole, documents_of
from qr_core.server.jobs import RankJob
from qr_core.types import Order

router = new_router()
DIALECT = Dialect(router)


class RerankRequest(Body):
    """`/v1/rerank` and `/v2/rerank`: Cohere and Jina."""

    query: str
    documents: Documents
    model: str | None = Field(default=None, description="Ignored: the server has one model, named in the answer.")
    top_n: Whole | None = Field(default=None, description="At most this many results; by default all.")
    return_documents: bool | None = None
    rank_fields: list[Literal["text", "title"]] | None = Field(
        default=None, description="What of a document is ranked, besides its text; by default its title too."
    )
    order: Order | None = Field(
        default=None, description="reversed: the first document stands nearest the query. By default the server's."
    )
    retrieval_weight: float | None = Field(
        default=None, ge=0, le=1, description="How much the order of the documents counts. By default the server's."
    )


class RankedDocument(BaseModel):
    """A document as it was sent."""

    text: str
    title: str | None = None
    id: str | int | None = None


class RerankResult(BaseModel):
    """One document's place: position in the request, and relevance in [0, 1]."""

    index: int
    relevance_score: float
    document: RankedDocument | None = None


class ApiVersion(BaseModel):
    """Which of the protocols answers."""

    version: str


class Meta(BaseModel):
    """How the answer came about; see `qr_core.types.Ranking`."""

    api_version: ApiVersion
    segments: int
    windows: int = Field(description="The same as segments, as it was called before.")
    rounds: int


class Usage(BaseModel):
    """Tokens of query and documents."""

    total_tokens: int


class RerankResponse(BaseModel):
    """Best first."""

    id: str
    model: str
    results: list[RerankResult]
    meta: Meta
    usage: Usage


@router.post("/v1/rerank", response_model_exclude_none=True)
async def rerank_v1(body: RerankRequest, ask: Ask) -> RerankResponse:
    """Rank documents, as Cohere's first API and Jina's do."""
    return await _rerank(body, ask, "1")


@router.post("/v2/rerank", response_model_exclude_none=True)
async def rerank_v2(body: RerankRequest, ask: Ask) -> RerankResponse:
    """Rank documents, as Cohere's second API does."""
    return await _rerank(body, ask, "2")


async def _rerank(body: RerankRequest, ask: Asking, version: str) -> RerankResponse:
    documents = documents_of(body.documents, body.rank_fields is None or "title" in body.rank_fields)
    ranking = await ask(RankJob(body.query, documents, body.top_n, body.order, body.retrieval_weight))
    results = [RerankResult(index=hit.index, relevance_score=hit.relevance) for hit in ranking]
    if body.return_documents:
        for result in results:
            sent = body.documents[result.index]
            fields = {"text": sent} if isinstance(sent, str) else sent.model_dump()
            result.document = RankedDocument(**fields)
    return RerankResponse(
        id=ask.id,
        model=ask.model,
        results=results,
        meta=Meta(
            api_version=ApiVersion(version=version),
            segments=ranking.segments,
            windows=ranking.segments,
            rounds=ranking.rounds,
        ),
        usage=Usage(total_tokens=ask.tokens),
    )
