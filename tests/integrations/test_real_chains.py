"""Real chains: MiniLM embeddings in Qdrant, retrieved by each framework, then reranked by its adapter.

Run with `-s` to see the table. The figures are what they are; the test asks only that the chain does its work.
"""

from __future__ import annotations

import pytest
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.embeddings import Embeddings
from langchain_qdrant import QdrantVectorStore
from langchain_qrhead import QRHeadCompressor
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.schema import TextNode
from llama_index.embeddings.huggingface import HuggingFaceEmbedding
from llama_index.postprocessor.qrhead import QRHeadRerank
from llama_index.vector_stores.qdrant import QdrantVectorStore as LlamaQdrant
from qdrant_client import QdrantClient

from qr_core.evaluation import metrics

CANDIDATES = 20
MEASURES = ("RR@10", "R@3")


class MiniLM(Embeddings):
    """LangChain's interface to the sentence-transformers model."""

    def __init__(self, model):
        self.model = model

    def embed_documents(self, texts):
        return self.model.encode(texts, show_progress_bar=False).tolist()

    def embed_query(self, text):
        return self.model.encode([text], show_progress_bar=False)[0].tolist()


def with_langchain(island, minilm):
    store = QdrantVectorStore.from_texts(
        [row["text"] for row in island],
        MiniLM(minilm),
        metadatas=[{"key": row["id"]} for row in island],
        location=":memory:",
        collection_name="island",
    )
    dense = store.as_retriever(search_kwargs={"k": CANDIDATES})
    reranked = ContextualCompressionRetriever(base_compressor=QRHeadCompressor(), base_retriever=dense)

    def keys(retriever, query):
        return [(d.metadata["key"], d.page_content) for d in retriever.invoke(query)]

    return lambda query: (keys(dense, query), keys(reranked, query))


def with_llama_index(island, minilm_folder):
    store = LlamaQdrant(client=QdrantClient(":memory:"), collection_name="island")
    index = VectorStoreIndex(
        [TextNode(text=row["text"], id_=f"00000000-0000-0000-0000-{i:012}", metadata={"key": row["id"]},
                  excluded_embed_metadata_keys=["key"]) for i, row in enumerate(island)],
        storage_context=StorageContext.from_defaults(vector_store=store),
        embed_model=HuggingFaceEmbedding(str(minilm_folder), device="cpu"),
    )  # fmt: skip
    dense, rerank = index.as_retriever(similarity_top_k=CANDIDATES), QRHeadRerank()

    def keys(nodes):
        return [(n.node.metadata["key"], n.text) for n in nodes]

    def run(query):
        nodes = dense.retrieve(query)
        return keys(nodes), keys(rerank.postprocess_nodes(nodes, query_str=query))

    return run


def figures(questions, orders):
    qrels = {row["question"]: {row["passage"]: 1} for row in questions}
    run = {query: {key: -float(place) for place, (key, _) in enumerate(order)} for query, order in orders.items()}
    values = metrics.per_query(run, qrels, MEASURES)
    return {name: metrics.summary(values[name]) for name in MEASURES}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:Payload indexes have no effect")
@pytest.mark.parametrize("framework", ["langchain", "llama_index"])
def test_dense_retrieval_then_the_adapter(framework, island, questions, minilm, minilm_folder):
    assert len(island) >= 100
    assert len(questions) >= 50
    run = with_langchain(island, minilm) if framework == "langchain" else with_llama_index(island, minilm_folder)
    before, after = {}, {}
    for row in questions:
        before[row["question"]], after[row["question"]] = run(row["question"])
        assert sorted(before[row["question"]]) == sorted(after[row["question"]])
        assert len(after[row["question"]]) == CANDIDATES
    print(f"\n{framework}: {len(questions)} questions over {len(island)} passages, {CANDIDATES} candidates each")
    found = {"dense": figures(questions, before), "dense, then QRHead": figures(questions, after)}
    for name, values in found.items():
        cells = "  ".join(f"{m} {v['mean']:.3f} [{v['low']:.3f}, {v['high']:.3f}]" for m, v in values.items())
        print(f"  {name:<20}{cells}")
    example = questions[17]
    print(f"  {example['question']} (answered by {example['passage']})")
    for name, order in (("dense", before), ("QRHead", after)):
        for place, (key, text) in enumerate(order[example["question"]][:3], start=1):
            print(f"    {name:<7}{place}. {key:<5}{text}")
    for values in found.values():  # chance is 0.18 for RR@10 of 20 candidates
        assert values["RR@10"]["mean"] > 0.6
        assert values["R@3"]["mean"] > 0.6
