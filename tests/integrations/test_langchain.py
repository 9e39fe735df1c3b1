"""QRHeadCompressor and the agent middleware inside LangChain's own retrievers, pipelines, chains and agents."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_classic.retrievers.document_compressors import DocumentCompressorPipeline
from langchain_core.documents import BaseDocumentTransformer, Document
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from langchain_core.tools import tool
from langchain_core.tracers.base import BaseTracer
from langchain_qrhead import QRHeadCompressor, QRHeadContextMiddleware
from pydantic import Field

from qr_core import InputError

QUERY = "When was the lighthouse first lit?"
ANSWER = "The lighthouse was first lit in 1871."
TEXTS = ["Ships wait outside for the tide.", "The baker lit the oven at five.", ANSWER, "The bridge has six arches."]


class Fixed(BaseRetriever):
    """Always finds the same."""

    texts: list[str] = TEXTS

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        return [Document(page_content=text, id=str(i)) for i, text in enumerate(self.texts)]


class Nothing(BaseDocumentTransformer):
    """A pipeline stage that lets nothing through."""

    def transform_documents(self, documents, **kwargs):
        return []


def retriever(**options) -> ContextualCompressionRetriever:
    return ContextualCompressionRetriever(base_compressor=QRHeadCompressor(**options), base_retriever=Fixed())


def test_contextual_compression_retriever():
    found = retriever(top_n=2).invoke(QUERY)
    assert found[0].page_content == ANSWER
    assert len(found) == 2
    assert asyncio.run(retriever(top_n=2).ainvoke(QUERY)) == found


def test_pipeline_with_an_empty_stage():
    documents = Fixed().invoke(QUERY)
    pipeline = DocumentCompressorPipeline(transformers=[QRHeadCompressor(top_n=3), QRHeadCompressor(top_n=1)])
    assert [d.page_content for d in pipeline.compress_documents(documents, QUERY)] == [ANSWER]
    emptied = DocumentCompressorPipeline(transformers=[Nothing(), QRHeadCompressor()])
    assert emptied.compress_documents(documents, QUERY) == []
    assert asyncio.run(emptied.acompress_documents(documents, QUERY)) == []


def test_expression_language_chain():
    chain = (
        {"documents": Fixed(), "query": RunnablePassthrough()}
        | QRHeadCompressor(top_n=1).as_runnable()
        | RunnableLambda(lambda documents: {"context": documents[0].page_content})
        | ChatPromptTemplate.from_template("Answer from: {context}")
        | GenericFakeChatModel(messages=iter([AIMessage("1871"), AIMessage("1871")]))
    )
    assert chain.invoke(QUERY).content == "1871"
    assert asyncio.run(chain.ainvoke(QUERY)).content == "1871"


class Runs(BaseTracer):
    """Collects finished root runs."""

    def __init__(self):
        super().__init__()
        self.roots = []

    def _persist_run(self, run):
        self.roots.append(run)


def test_the_run_is_named_and_nested_under_its_parent():
    tracer = Runs()
    retriever(top_n=1).invoke(QUERY, config={"callbacks": [tracer]})
    (root,) = tracer.roots
    run = next(run for run in root.child_runs if run.name == "QRHeadCompressor")
    assert len(run.inputs["documents"]) == 4
    assert [document.page_content for document in run.outputs["output"]] == [ANSWER]
    assert run.parent_run_id == root.id


def test_failures_are_seen_in_the_trace():
    tracer = Runs()
    with pytest.raises(InputError):
        QRHeadCompressor().compress_documents(Fixed().invoke(QUERY), " ", callbacks=[tracer])
    assert "query is empty" in tracer.roots[0].error


class Seen(GenericFakeChatModel):
    """A chat model that keeps what it was asked."""

    asked: list = Field(default_factory=list)

    def bind_tools(self, tools, **kwargs):
        return self

    def _generate(self, messages, *args, **kwargs):
        self.asked.append(messages)
        return super()._generate(messages, *args, **kwargs)


LONG = "Nothing of note happened that year. " * 150 + ANSWER + " The winter was mild. " * 100


@tool
def chronicle(topic: str) -> str:
    """Look something up in the chronicle."""
    return LONG


def agent(middleware):
    call = AIMessage("", tool_calls=[{"name": "chronicle", "args": {"topic": "lighthouse"}, "id": "call-1"}])
    model = Seen(messages=iter([call, AIMessage("In 1871.")]))
    return model, create_agent(model, [chronicle], middleware=[middleware])


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_an_agents_model_reads_pruned_tool_messages_and_the_state_keeps_the_originals(mode):
    middleware = QRHeadContextMiddleware(max_tokens=60)
    model, graph = agent(middleware)
    asked = {"messages": [HumanMessage(QUERY)]}
    state = graph.invoke(asked) if mode == "sync" else asyncio.run(graph.ainvoke(asked))
    stored = next(message for message in state["messages"] if isinstance(message, ToolMessage))
    read = next(message for message in model.asked[-1] if isinstance(message, ToolMessage))
    assert stored.content == LONG
    assert ANSWER in read.content
    assert middleware.options.scorer.count_tokens(read.content) <= 60
    assert (read.tool_call_id, read.id) == (stored.tool_call_id, stored.id) == ("call-1", stored.id)
    assert state["messages"][-1].content == "In 1871."


def test_short_and_structured_tool_messages():
    middleware = QRHeadContextMiddleware(max_tokens=40, ellipsis=None)
    blocks = [{"type": "text", "text": LONG}, {"type": "image", "url": "https://example.org/a.png"}]
    messages = [
        HumanMessage(QUERY),
        ToolMessage("short", tool_call_id="1"),
        ToolMessage(blocks, tool_call_id="2"),
        AIMessage(LONG),
    ]
    shortened = middleware._shortened(messages)
    assert shortened[0] is messages[0]
    assert shortened[1] is messages[1]
    assert shortened[3] is messages[3]
    assert shortened[2].content[1] == blocks[1]
    assert ANSWER in shortened[2].content[0]["text"]
    assert messages[2].content[0]["text"] == LONG
    with pytest.raises(InputError, match="max_tokens is 0"):
        QRHeadContextMiddleware(max_tokens=0)
    with pytest.raises(InputError, match="ellipsis has 101 characters"):
        QRHeadContextMiddleware(ellipsis="." * 101)
