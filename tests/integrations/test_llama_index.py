"""QRHeadRerank inside LlamaIndex's own query engines, chat engines, agents and synthesisers."""

from __future__ import annotations

import asyncio

import pytest
from llama_index.core import Document, MockEmbedding, VectorStoreIndex, get_response_synthesizer
from llama_index.core.bridge.pydantic import Field
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.llms import MockLLM
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.schema import NodeWithScore, TextNode
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
