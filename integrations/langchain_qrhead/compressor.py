"""A LangChain document compressor over the shared scorer: options, conversion, tracing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.runnables import RunnableLambda
from pydantic import ConfigDict, Field, PrivateAttr

from qr_core import QRScorer


class QRHeadCompressor(BaseDocumentCompressor):
    """Reorder documents by the attention that query-focused heads pay them, best first.

    Returned documents are copies; `metadata["relevance_score"]` is the document's share of the positive attention
    mass, in [0, 1], which depends on the other documents of the call. The model loads at the first call.
    """

    model: str | None = Field(default=None, description="Hub id or folder; by default the embedded small model.")
    heads: str | None = Field(default=None, description="Head set; by default the model's own.")
    top_n: int | None = Field(default=None, ge=1, description="Keep so many; by default all.")
    order: Literal["given", "reversed"] = Field(
        default="reversed", description="reversed: the first document, the most promising, stands nearest the query."
    )
    device: str | None = Field(default=None, description="By default CUDA, then MPS, then CPU.")
    dtype: str = Field(default="auto", description="auto, float32, bfloat16 or float16.")

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")
    _scorer: QRScorer | None = PrivateAttr(default=None)

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Rank `documents` for `query`, as a run named after this class under the caller's run."""
        run = RunnableLambda(self._ranked, name=type(self).__name__)
        return run.invoke({"documents": list(documents), "query": query}, config={"callbacks": callbacks})

    def _ranked(self, job: dict[str, Any]) -> list[Document]:
        documents: list[Document] = job["documents"]
        if not documents:
            return []
        if self._scorer is None:
            self._scorer = QRScorer.from_pretrained(self.model, self.heads, device=self.device, dtype=self.dtype)
        texts = [document.page_content for document in documents]
        ranking = self._scorer.rank(job["query"], texts, top_k=self.top_n, order=self.order)
        ranked = []
        for hit in ranking:
            document = documents[hit.index].model_copy(deep=True)
            document.metadata["relevance_score"] = hit.relevance
            ranked.append(document)
        return ranked
