"""QRHeadRerank inside LlamaIndex's own query engines, chat engines, agents and synthesisers."""

from __future__ import annotations

import asyncio

import pytest
from llama_index.core import Document, MockEmbedding, VectorStoreIndex, get_response_synthesizer
from llama_index.core.agent.workflow import FunctionAgent, ToolCallResult
from llama_index.core.base.llms.types import ToolCallBlock
from llama_index.core.bridge.pydantic import Field
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.llms import ChatMessage, MockLLM
from llama_index.core.llms.mock import MockFunctionCallingLLM
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.core.tools import RetrieverTool
from llama_index.postprocessor.qrhead import QRHeadRerank

from qr_core import InputError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the framework's own
QUERY = "When was the lighthouse first lit?"
ANSWER = "The lighthouse was first lit in 1871."
TEXTS = ["Ships wait outside for the tide.", "The baker lit the oven at five.", ANSWER, "The bridge has six arches."]
LONG = "Nothing of note happened that year. " * 200 + ANSWER + " The winter was mild." * 100


def nodes(texts=TEXTS) -> list[NodeWithScore]:
    return [NodeWithScore(node=TextNode(text=t, id_=f"n{i}"), score=1.0 - i / 10) for i, t in enumerate(texts)]


@pytest.fixture(scope="module")
def index():
    return VectorStoreIndex.from_documents([Document(text=t) for t in TEXTS], embed_model=MockEmbedding(8))


class Events(BaseEventHandler):
    """Keeps the rerank events, with the nodes' state when they came."""

    seen: list = Field(default_factory=list)

    @classmethod
    def class_name(cls) -> str:
        return "Events"

    def handle(self, event, **kwargs) -> None:
        if isinstance(event, ReRankStartEvent | ReRankEndEvent):
            self.seen.append((event, [(n.node.node_id, n.score) for n in event.nodes]))


@pytest.fixture
def events():
    handler = Events()
    dispatcher = get_dispatcher("llama_index.postprocessor.qrhead.base")
    dispatcher.add_event_handler(handler)
    yield handler.seen
    dispatcher.event_handlers.remove(handler)


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_9_one_pair_of_events_with_the_scores_from_before(events, mode):
    given = nodes()
    debug = LlamaDebugHandler(print_trace_on_end=False)
    rerank = QRHeadRerank(top_n=2, callback_manager=CallbackManager([debug]))
    if mode == "sync":
        found = rerank.postprocess_nodes(given, query_str=QUERY)
    else:
        found = asyncio.run(rerank.apostprocess_nodes(given, query_str=QUERY))
    (start, before), (end, after) = events
    assert isinstance(start, ReRankStartEvent)
    assert isinstance(end, ReRankEndEvent)
    assert (start.top_n, start.model_name, start.query.query_str) == (2, "qrhead-mini", QUERY)
    assert before == [(n.node.node_id, n.score) for n in nodes()]
    assert [(n.node.node_id, n.score) for n in start.nodes] == before  # not changed afterwards either
    assert after == [(n.node.node_id, n.score) for n in found]
    (pair,) = debug.get_event_pairs(CBEventType.RERANKING)
    assert len(pair) == 2


def test_9_events_come_in_pairs_when_nothing_is_there_and_when_it_fails(events):
    QRHeadRerank(model="/absent").postprocess_nodes([], query_str=QUERY)
    assert [type(event).__name__ for event, _ in events] == ["ReRankStartEvent", "ReRankEndEvent"]
    with pytest.raises(InputError):
        QRHeadRerank().postprocess_nodes(nodes(), query_str=" ")
    assert [type(event).__name__ for event, _ in events[2:]] == ["ReRankStartEvent", "ReRankEndEvent"]


def engine(index, **options):
    return index.as_query_engine(
        llm=MockLLM(), similarity_top_k=4, node_postprocessors=[QRHeadRerank(top_n=1)], **options
    )


def test_query_engine(index):
    found = engine(index).query(QUERY)
    assert [n.text for n in found.source_nodes] == [ANSWER]
    assert ANSWER in str(found)
    assert TEXTS[0] not in str(found)


def test_query_engine_async(index):
    found = asyncio.run(engine(index).aquery(QUERY))
    assert [n.text for n in found.source_nodes] == [ANSWER]
    assert ANSWER in str(found)


def test_query_engine_streaming(index):
    found = engine(index, streaming=True).query(QUERY)
    assert ANSWER in "".join(found.response_gen)
    assert [n.text for n in found.source_nodes] == [ANSWER]


def test_chat_engine(index):
    options = {"chat_mode": "context", "llm": MockLLM(), "similarity_top_k": 4}
    options["memory"] = ChatMemoryBuffer.from_defaults(token_limit=3000)
    chat = index.as_chat_engine(node_postprocessors=[QRHeadRerank(top_n=1)], **options)
    for found in (chat.chat(QUERY), asyncio.run(chat.achat(QUERY))):
        assert [n.text for n in found.source_nodes] == [ANSWER]
        assert ANSWER in str(found)  # the model repeats what it reads
        assert TEXTS[3] not in str(found)


def asks_once(messages, **_):
    """A model that calls the retriever tool, then repeats what it read."""
    read = [message.content for message in messages if message.role == "tool"]
    if read:
        return ChatMessage(role="assistant", content=f"I read: {read[-1]}")
    call = ToolCallBlock(tool_call_id="call-1", tool_name="notes", tool_kwargs={"input": QUERY})
    return ChatMessage(role="assistant", blocks=[call])


def test_retriever_tool_of_an_agent(index):
    tool = RetrieverTool.from_defaults(
        index.as_retriever(similarity_top_k=4),
        name="notes",
        description="Notes on the harbour.",
        node_postprocessors=[QRHeadRerank(top_n=1)],
    )
    agent = FunctionAgent(tools=[tool], llm=MockFunctionCallingLLM(response_generator=asks_once))

    async def main():
        running = agent.run(user_msg=QUERY, memory=ChatMemoryBuffer.from_defaults(token_limit=3000))
        results = [e async for e in running.stream_events() if isinstance(e, ToolCallResult)]
        return results, await running

    (result,), answer = asyncio.run(main())
    assert ANSWER in str(result.tool_output)
    assert TEXTS[3] not in str(result.tool_output)
    assert ANSWER in str(answer)


@pytest.mark.parametrize("mode", ["compact", "refine", "tree_summarize"])
def test_raw_long_text_is_pruned_before_synthesis(mode):
    prune = QRHeadRerank(prune=True, prune_max_tokens=40)
    (kept,) = prune.postprocess_nodes([NodeWithScore(node=TextNode(text=LONG))], query_str=QUERY)
    found = get_response_synthesizer(llm=MockLLM(), response_mode=mode).synthesize(QUERY, nodes=[kept])
    assert ANSWER in str(found)
    assert prune.scorer.count_tokens(kept.text) <= 40
    assert len(str(found)) < len(LONG) / 5
    (start, end), *_ = kept.node.metadata["qrhead_spans"]
    assert LONG[start:end] in kept.text


def test_open_inference_records_a_reranker_span(spans, index):
    from openinference.instrumentation.llama_index import LlamaIndexInstrumentor

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
