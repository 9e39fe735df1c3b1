"""A LangChain document compressor over the shared scorer: conversion and tracing.

Options, ranking and pruning are those of `qr_core.chain`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.runnables import Runnable, RunnableLambda

from qr_core.chain import ChainOptions, Kept


class QRHeadCompressor(ChainOptions, BaseDocumentCompressor):
    """Reorder documents by the attention that query-focused heads pay to them, best first, and prune them if asked to.

    Returned documents are copies; `metadata["relevance_score"]` is the document's share of the positive attention
    mass, in [0, 1], which depends on the other documents of the call. Where documents are pruned, `metadata` holds
    `qrhead_spans` (characters of the original `page_content`), `qrhead_kept_tokens` and `qrhead_total_tokens`.
    With `keep_retrieval_score`, a `relevance_score` from an earlier stage is kept as `retrieval_score`. The model
    loads at the first call.
    """

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Rank `documents` for `query`, as a run named after this class under the caller's run.

        Raises
        ------
        InputError
            When the query is empty or not a string.
        """
        found: list[Document] = self.as_runnable().invoke(
            {"documents": list(documents), "query": query}, config={"callbacks": callbacks}
        )
        return found

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """`compress_documents` without blocking the event loop, on the scorer's own thread."""
        found: list[Document] = await self.as_runnable().ainvoke(
            {"documents": list(documents), "query": query}, config={"callbacks": callbacks}
        )
        return found

    def as_runnable(self) -> Runnable[dict[str, Any], list[Document]]:
        """A step of a chain, from `{"documents": ..., "query": ...}` to documents."""
        return RunnableLambda(self._compressed, afunc=self._acompressed, name=type(self).__name__)

    async def _acompressed(self, job: dict[str, Any]) -> list[Document]:
        if not job["documents"]:
            return []
        return await self.in_scorers_thread(self._compressed, job)

    def _compressed(self, job: dict[str, Any]) -> list[Document]:
        documents: list[Document] = job["documents"]
        kept = self.select(job["query"], [document.page_content for document in documents])
        return [self._copy(documents[one.index], one) for one in kept]

    def _copy(self, document: Document, kept: Kept) -> Document:
        document = document.model_copy(deep=True)
        if self.keep_retrieval_score and "relevance_score" in document.metadata:
            document.metadata["retrieval_score"] = document.metadata["relevance_score"]
        document.metadata["relevance_score"] = kept.relevance
        document.metadata.update(kept.pruning())
        if kept.text is not None:
            document.page_content = kept.text
        return document
