"""Schemas: bodies of requests and answers, as each protocol's clients send and read them.

Types are strict: a number in quotes is no number. Fields that a protocol has and that make no sense here (truncation,
chunks, priorities) are passed over. Knows nothing of how answers come about.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, FailFast, Field, Tag, model_validator

from qr_core.text.chunking import TextFormat, UnitName
from qr_core.types import Document, Order

LARGEST = 2**53
"""Of any whole number: more does not survive JSON."""
Whole = Annotated[int, Field(ge=1, le=LARGEST)]


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", protected_namespaces=())


class DocumentIn(_Body):
    """A document with more to it than text."""

    text: str
    title: str | None = None
    id: str | Annotated[int, Field(ge=-LARGEST, le=LARGEST)] | None = None


def _kind(value: Any) -> str | None:
    if isinstance(value, str):
        return "string"
    return "object" if isinstance(value, dict | DocumentIn) else None


TextOrObject = Annotated[
    Annotated[str, Tag("string")] | Annotated[DocumentIn, Tag("object")],
    Discriminator(
        _kind,
        custom_error_type="document_type",
        custom_error_message="Input should be a string or an object with text",
    ),
]
Documents = Annotated[list[TextOrObject], FailFast()]


def documents_of(given: list[TextOrObject], with_titles: bool = True) -> list[Document]:
    """Documents as the scorer takes them."""
    return [
        Document(one) if isinstance(one, str) else Document(one.text, one.title if with_titles else None, one.id)
        for one in given
    ]


class RerankRequest(_Body):
    """`/v1/rerank` and `/v2/rerank`: Cohere and Jina."""

    query: str
    documents: Documents
    model: str | None = Field(default=None, description="Passed over: the server has one model, named in the answer.")
    top_n: Whole | None = Field(default=None, description="Only the best so many; by default all.")
    return_documents: bool | None = None
    rank_fields: list[Literal["text", "title"]] | None = Field(
        default=None, description="Without title, titles are not read. By default both."
    )
    order: Order | None = Field(
        default=None, description="reversed: the first document stands nearest the query. By default the server's."
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
    windows: int
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


class TeiRequest(_Body):
    """`/rerank`: Text Embeddings Inference."""

    query: str
    texts: Annotated[list[str], FailFast()]
    raw_scores: bool = Field(default=False, description="Scores as `QRScorer` gives them, instead of relevances.")
    return_text: bool = False
    truncate: bool | None = Field(default=None, description="Passed over: long texts are read in windows, never cut.")
    truncation_direction: Literal["Left", "Right", "left", "right"] = "Right"


class TeiRank(BaseModel):
    """One text's place: position in the request, and relevance in [0, 1] or raw score."""

    index: int
    score: float
    text: str | None = None


class PruneRequest(_Body):
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
    ellipsis: str | None = None
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
    windows: int


class Status(BaseModel):
    """Whether the server lives, or is ready."""

    status: Literal["ok", "ready", "loading", "loaded", "failed", "stopping"]
    model: str
