"""Text Embeddings Inference. Errors have the common body: its clients read `error` and `error_type`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, FailFast, Field

from qr_core.server.dialects.dialect import Ask, Dialect, new_router
from qr_core.server.dialects.fields import Body, Few
from qr_core.server.jobs import RankJob
from qr_core.types import Document

router = new_router()
DIALECT = Dialect(router)

IGNORED = "Checked, then ignored: texts are never cut off. Long ones are scored in segments."
"""Clients send both fields of truncation with every request, so they must be accepted."""


class TeiRequest(Body):
    """`/rerank`: Text Embeddings Inference."""

    query: str
    texts: Annotated[list[str], FailFast(), Few]
    raw_scores: bool = Field(default=False, description="Scores as `QRScorer` gives them, instead of relevances.")
    return_text: bool = False
    truncate: bool | None = Field(default=None, description=IGNORED)
    truncation_direction: Literal["Left", "Right", "left", "right"] = Field(default="Right", description=IGNORED)


class TeiRank(BaseModel):
    """One text's place: position in the request, and relevance in [0, 1] or raw score."""

    index: int
    score: float
    text: str | None = None


@router.post("/rerank", response_model_exclude_none=True)
async def rerank(body: TeiRequest, ask: Ask) -> list[TeiRank]:
    """Rank texts, as Text Embeddings Inference does."""
    ranking = await ask(RankJob(body.query, [Document(text) for text in body.texts]))
    return [
        TeiRank(
            index=hit.index,
            score=hit.score if body.raw_scores else hit.relevance,
            text=hit.document.text if body.return_text else None,
        )
        for hit in ranking
    ]
