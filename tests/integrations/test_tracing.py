"""Tracing as seen from outside: what OpenInference records of both adapters."""

from __future__ import annotations

import asyncio

from llama_index.core import Document, MockEmbedding, VectorStoreIndex
from openinference.instrumentation.langchain import LangChainInstrumentor
from openinference.instrumentation.llama_index import LlamaIndexInstrumentor

from tests.integrations.test_langchain import ANSWER, QUERY, TEXTS, retriever
from tests.integrations.test_llama_index import engine


def test_langchain_a_nested_named_span(spans):
    instrumentor = LangChainInstrumentor()
    instrumentor.instrument(tracer_provider=spans.provider)
    try:
        retriever(top_n=1).invoke(QUERY)
    finally:
        instrumentor.uninstrument()
    by_name = {span.name: span for span in spans.finished()}
    ours = by_name["QRHeadCompressor"]
    assert ours.parent.span_id == by_name["ContextualCompressionRetriever"].context.span_id
    assert ANSWER in ours.attributes["input.value"]
    assert ANSWER in ours.attributes["output.value"]


def test_llama_index_a_reranker_span_with_documents_before_and_after(spans):
    index = VectorStoreIndex.from_documents([Document(text=t) for t in TEXTS], embed_model=MockEmbedding(8))
    instrumentor = LlamaIndexInstrumentor()
    instrumentor.instrument(tracer_provider=spans.provider)
    try:
        engine(index).query(QUERY)
        asyncio.run(engine(index).aquery(QUERY))
    finally:
        instrumentor.uninstrument()
    rerankers = [s for s in spans.finished() if s.attributes.get("openinference.span.kind") == "RERANKER"]
    assert len(rerankers) == 2
    for span in rerankers:
        before = [span.attributes[f"reranker.input_documents.{i}.document.content"] for i in range(4)]
        assert sorted(before) == sorted(TEXTS)
        assert span.attributes["reranker.output_documents.0.document.content"] == ANSWER
        assert "reranker.output_documents.1.document.content" not in span.attributes
        assert span.attributes["reranker.query"] == QUERY
        assert span.attributes["reranker.model_name"] == "qrhead-mini"
        assert span.attributes["reranker.top_k"] == 1
        assert span.parent is not None
