"""The adapters on the frameworks' own objects, with the embedded model."""

from __future__ import annotations

import asyncio
import json

import pytest
from langchain_core.documents import Document
from langchain_core.tracers.base import BaseTracer
from langchain_qrhead import QRHeadCompressor
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.schema import NodeRelationship, NodeWithScore, RelatedNodeInfo, TextNode
from llama_index.postprocessor.qrhead import QRHeadRerank
from pydantic import ValidationError

QUERY = "When was the lighthouse first lit?"
TEXTS = [
    "Every morning at five the baker lit the oven.",
    "Ships wait outside the harbour for the tide.",
    "The lighthouse was first lit in 1871.",
    "The bridge has six arches.",
]


def lc_documents():
    return [Document(page_content=t, id=f"d{i}", metadata={"page": i, "nested": [i]}) for i, t in enumerate(TEXTS)]


def li_nodes():
    nodes = [TextNode(text=t, id_=f"n{i}", metadata={"page": i}) for i, t in enumerate(TEXTS)]
    nodes[2].relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id="book")
    return [NodeWithScore(node=node, score=1.0 - i / 10) for i, node in enumerate(nodes)]


def test_langchain_reranks_copies():
    given = lc_documents()
    before = [d.model_dump_json() for d in given]
    found = QRHeadCompressor(top_n=2).compress_documents(given, QUERY)
    assert [d.model_dump_json() for d in given] == before
    assert found[0].id == "d2"
    assert len(found) == 2
    assert found[0].metadata["page"] == 2
    assert 0 <= found[1].metadata["relevance_score"] <= found[0].metadata["relevance_score"] <= 1
    json.dumps([d.metadata for d in found])
    found[0].metadata["nested"].append("changed")
    assert given[2].metadata["nested"] == [2]


def test_langchain_async_and_empty():
    compressor = QRHeadCompressor()
    found = asyncio.run(compressor.acompress_documents(lc_documents(), QUERY))
    assert found == compressor.compress_documents(lc_documents(), QUERY)
    assert QRHeadCompressor(model="/absent").compress_documents([], QUERY) == []


class Names(BaseTracer):
    def __init__(self):
        super().__init__()
        self.names = []

    def _persist_run(self, run):
        self.names.append(run.name)


def test_langchain_traces_a_named_run():
    tracer = Names()
    QRHeadCompressor().compress_documents(lc_documents(), QUERY, callbacks=[tracer])
    assert tracer.names == ["QRHeadCompressor"]


def test_llama_index_reranks_copies():
    given = li_nodes()
    before = [n.model_dump_json() for n in given]
    found = QRHeadRerank(top_n=2).postprocess_nodes(given, query_str=QUERY)
    assert [n.model_dump_json() for n in given] == before
    assert found[0].node.node_id == "n2"
    assert len(found) == 2
    assert found[0].node.relationships[NodeRelationship.SOURCE].node_id == "book"
    assert type(found[0].score) is float
    found[0].node.metadata["page"] = "changed"
    assert given[2].node.metadata["page"] == 2


def test_llama_index_async_empty_and_missing_query():
    rerank = QRHeadRerank()
    found = asyncio.run(rerank.apostprocess_nodes(li_nodes(), query_str=QUERY))
    assert [n.node.node_id for n in found] == [
        n.node.node_id for n in rerank.postprocess_nodes(li_nodes(), query_str=QUERY)
    ]
    assert QRHeadRerank(model="/absent").postprocess_nodes([], query_str=QUERY) == []
    with pytest.raises(ValueError, match="needs a query"):
        rerank.postprocess_nodes(li_nodes())


def test_llama_index_events_come_in_pairs():
    debug = LlamaDebugHandler(print_trace_on_end=False)
    rerank = QRHeadRerank(callback_manager=CallbackManager([debug]))
    rerank.postprocess_nodes(li_nodes(), query_str=QUERY)
    pairs = debug.get_event_pairs(CBEventType.RERANKING)
    assert len(pairs) == 1
    assert len(pairs[0]) == 2


def test_both_frameworks_share_scores_and_weights():
    compressor, rerank = QRHeadCompressor(), QRHeadRerank()
    ours = {d.id: d.metadata["relevance_score"] for d in compressor.compress_documents(lc_documents(), QUERY)}
    plain = [NodeWithScore(node=TextNode(text=t, id_=f"d{i}")) for i, t in enumerate(TEXTS)]
    theirs = {n.node.node_id: n.score for n in rerank.postprocess_nodes(plain, query_str=QUERY)}
    assert ours == theirs
    assert compressor._scorer._reader.model is rerank._scorer._reader.model


@pytest.mark.parametrize("adapter", [QRHeadCompressor, QRHeadRerank])
@pytest.mark.parametrize("options", [{"top_n": 0}, {"top_n": -1}, {"topn": 3}, {"order": "sideways"}])
def test_wrong_options_are_refused_at_construction(adapter, options):
    with pytest.raises(ValidationError):
        adapter(**options)
