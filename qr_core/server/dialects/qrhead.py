"""qrhead's own dialect: pruning, which no other has."""

from __future__ import annotations

from pydantic import BaseModel, Field, model_validator

from qr_core.checks import LONGEST_ELLIPSIS
from qr_core.server.dialects.dialect import Ask, Dialect, new_router
from qr_core.server.dialects.fields import LARGEST, Body, Documents, Whole, documents_of
from qr_core.server.jobs import PruneJob
from qr_core.text.chunking import TextFormat
from qr_core.text.units import UnitName
from qr_core.types import Order

router = new_router()
DIALECT = Dialect(router)


class PruneRequest(Body):
    """`/v1/prune`: either one text or documents, and how much to keep; see `QRScorer.prune`."""

    query: str
    text: str | None = None
    documents: Documents = Field(default_factory=list)
    max_tokens: Whole | None = None
    top_k: Whole | None = None
    min_relevance: float | None = Field(default=None, ge=0, le=1)
    min_keep: int = Field(default=0, ge=0, le=LARGEST)
    unit: UnitName = "sentence"
    text_format: TextFormat = "text"
    headings: bool = False
    titles: bool = False
    ellipsis: str | None = Field(default=None, max_length=LONGEST_ELLIPSIS)
    order: Order | None = None

    @model_validator(mode="after")
    def _check(self) -> PruneRequest:
        if (self.text is None) == ("documents" not in self.model_fields_set):
            raise ValueError("pass either text or documents")
        if self.max_tokens is None and self.top_k is None and self.min_relevance is None:
            raise ValueError("pass max_tokens, top_k or min_relevance: nothing says how much to keep")
        return self


class KeptText(BaseModel):
    """What is kept of the document at `index`."""

    index: int
    text: str


class KeptSpan(BaseModel):
    """A kept part: characters `start` to `end` of the text of the document at `index`."""

    index: int
    start: int
    end: int
    score: float
    heading: bool


class PruneResponse(BaseModel):
    """See `qr_core.types.Pruned`."""

    id: str
    model: str
    text: str
    texts: list[KeptText]
    spans: list[KeptSpan]
    kept_tokens: int
    total_tokens: int
    segments: int
    windows: int = Field(description="The same as segments, as it was called before.")


@router.post("/v1/prune")
async def prune(body: PruneRequest, ask: Ask) -> PruneResponse:
    """Keep the parts of a text, or of documents, that matter for a query."""
    context = documents_of(body.documents) if body.text is None else body.text
    options = body.model_dump(exclude={"query", "text", "documents", "order"})
    pruned = await ask(PruneJob(body.query, context, body.order, options))
    return PruneResponse(
        id=ask.id,
        model=ask.model,
        text=pruned.text,
        texts=[KeptText(index=index, text=text) for index, text in pruned.texts],
        spans=[KeptSpan(**span) for span in pruned.to_dict()["spans"]],
        kept_tokens=pruned.kept_tokens,
        total_tokens=pruned.total_tokens,
        segments=pruned.segments,
        windows=pruned.segments,
    )
