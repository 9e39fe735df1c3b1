"""Both frameworks behind one face: how each makes its items, calls its adapter, and hands back what came out."""

from __future__ import annotations

from dataclasses import dataclass, field

from langchain_core.documents import Document
from langchain_qrhead import QRHeadCompressor
from llama_index.core.schema import MetadataMode, NodeRelationship, NodeWithScore, RelatedNodeInfo, TextNode
from llama_index.postprocessor.qrhead import QRHeadRerank

QUERY = "When was the lighthouse first lit?"
TEXTS = [
    "Every morning at five the baker lit the oven. The bread was ready at eight.",
    "Ships wait outside the harbour for the tide.",
    "The harbour is deep. The lighthouse was first lit in 1871. Its stairs are steep, and visitors rest halfway.",
    "The bridge has six arches. Cattle cross it in spring.",
]


@dataclass
class Out:
    """What came out, the same for both frameworks."""

    id: str
    text: str
    score: float
    metadata: dict = field(default_factory=dict)


class LangChain:
    name = "langchain"
    make = QRHeadCompressor

    class Sub(Document):
        colour: str = "blue"

    def given(self, texts=TEXTS, ids=None):
        ids = ids or [f"d{i}" for i in range(len(texts))]
        rows = zip(ids, texts, strict=True)
        return [self.Sub(page_content=t, id=i, metadata={"page": n, "nested": [n]}) for n, (i, t) in enumerate(rows)]

    def run(self, adapter, given, query=QUERY):
        return [self.out(d) for d in adapter.compress_documents(given, query)]

    async def arun(self, adapter, given, query=QUERY):
        return [self.out(d) for d in await adapter.acompress_documents(given, query)]

    def out(self, document):
        assert type(document) is self.Sub
        assert document.colour == "blue"
        return Out(document.id, document.page_content, document.metadata["relevance_score"], document.metadata)


class LlamaIndex:
    name = "llama_index"
    make = QRHeadRerank

    class Sub(TextNode):
        colour: str = "blue"

    def given(self, texts=TEXTS, ids=None):
        ids = ids or [f"d{i}" for i in range(len(texts))]
        nodes = []
        for n, (i, t) in enumerate(zip(ids, texts, strict=True)):
            metadata = {"page": n, "nested": [n]}
            node = self.Sub(text=t, id_=i, metadata=metadata, excluded_embed_metadata_keys=list(metadata))
            node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id="book")
            nodes.append(NodeWithScore(node=node, score=1.0 - n / 10))
        return nodes

    def run(self, adapter, given, query=QUERY):
        return [self.out(n) for n in adapter.postprocess_nodes(given, query_str=query)]

    async def arun(self, adapter, given, query=QUERY):
        return [self.out(n) for n in await adapter.apostprocess_nodes(given, query_str=query)]

    def out(self, found):
        assert type(found.node) is self.Sub
        assert found.node.colour == "blue"
        assert found.node.relationships[NodeRelationship.SOURCE].node_id == "book"
        return Out(found.node.node_id, found.node.get_content(MetadataMode.NONE), found.score, found.node.metadata)


PRUNE = {"prune": True, "prune_max_tokens": 40, "prune_min_relevance": 0.05}
