"""LangChain's own tests of retrievers, on a ContextualCompressionRetriever with QRHeadCompressor."""

from __future__ import annotations

from typing import Any

from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_qrhead import QRHeadCompressor
from langchain_tests.integration_tests import RetrieversIntegrationTests

from tests.integrations.test_langchain import QUERY, Fixed


class WithK(ContextualCompressionRetriever):
    """The standard tests want a retriever that takes `k`."""

    def __init__(self, k: int = 3, **fields: Any) -> None:
        fields.setdefault("base_compressor", QRHeadCompressor(top_n=k))
        fields.setdefault("base_retriever", Fixed())
        super().__init__(**fields)

    def _get_relevant_documents(self, query, *, run_manager, k: int | None = None, **kwargs):
        found = super()._get_relevant_documents(query, run_manager=run_manager, **kwargs)
        return list(found)[:k]


class TestStandard(RetrieversIntegrationTests):
    """LangChain's own tests of retrievers."""

    @property
    def retriever_constructor(self):
        return WithK

    @property
    def retriever_constructor_params(self):
        return {}

    @property
    def retriever_query_example(self):
        return QUERY
