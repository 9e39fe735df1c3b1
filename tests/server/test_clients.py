"""Clients as they are published, against the running server: their results are the library's own."""

from __future__ import annotations

import gc
import json
import shutil
import subprocess

import pytest

from qr_core.server import ApiKeys
from tests.helpers import DOCUMENTS, QUERY
from tests.server.conftest import serving

pytestmark = [  # the clients' own warnings are theirs
    pytest.mark.filterwarnings("default"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

TEXTS = [document.text for document in DOCUMENTS]
KEY = "k-5d1f02ab"


@pytest.fixture(scope="module", autouse=True)
def _collect():
    """What clients leave open is reported here, where warnings are no errors."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def guarded(tiny):
    """A server that asks for a key."""
    with serving(tiny, keys=ApiKeys([("clients", KEY)])) as server:
        yield server


@pytest.fixture
def expected(guarded):
    """Position and relevance of every text, best first."""
    return [(hit.index, hit.relevance) for hit in guarded.scorer.rank(QUERY, TEXTS)]


def test_cohere_sdk(guarded, expected):
    cohere = pytest.importorskip("cohere")
    second = cohere.ClientV2(KEY, base_url=guarded.url)
    answer = second.rerank(model="rerank-v3.5", query=QUERY, documents=TEXTS, top_n=2, max_tokens_per_doc=512)
    assert [(r.index, r.relevance_score) for r in answer.results] == expected[:2]
    assert answer.id
    assert answer.meta.api_version.version == "2"

    first = cohere.Client(KEY, base_url=guarded.url)
    documents = [{"text": text} for text in TEXTS]
    answer = first.rerank(model="rerank-english-v3.0", query=QUERY, documents=documents, return_documents=True)
    assert [(r.index, r.relevance_score) for r in answer.results] == expected
    assert [r.document.text for r in answer.results] == [TEXTS[index] for index, _ in expected]
    assert answer.meta.api_version.version == "1"


def test_cohere_sdk_knows_the_errors(guarded):
    cohere = pytest.importorskip("cohere")
    client = cohere.ClientV2(KEY, base_url=guarded.url)
    with pytest.raises(cohere.UnprocessableEntityError, match="the query is empty"):
        client.rerank(model="m", query=" ", documents=TEXTS)
    with pytest.raises(cohere.UnauthorizedError, match="API key"):
        cohere.ClientV2("wrong", base_url=guarded.url).rerank(model="m", query=QUERY, documents=TEXTS)


async def test_cohere_sdk_async(guarded, expected):
    cohere = pytest.importorskip("cohere")
    async with cohere.AsyncClientV2(KEY, base_url=guarded.url) as client:
        answer = await client.rerank(model="rerank-v3.5", query=QUERY, documents=TEXTS)
    assert [(r.index, r.relevance_score) for r in answer.results] == expected


def test_langchain_cohere(guarded, expected):
    langchain_cohere = pytest.importorskip("langchain_cohere")
    from langchain_core.documents import Document

    reranker = langchain_cohere.CohereRerank(cohere_api_key=KEY, base_url=guarded.url, model="rerank-v3.5", top_n=2)
    documents = [Document(text, metadata={"n": n}) for n, text in enumerate(TEXTS)]
    found = reranker.compress_documents(documents, QUERY)
    assert [(d.metadata["n"], d.metadata["relevance_score"]) for d in found] == expected[:2]
    plain = reranker.rerank(TEXTS, QUERY, top_n=3)
    assert [(r["index"], r["relevance_score"]) for r in plain] == expected


def nodes():
    from llama_index.core.schema import NodeWithScore, TextNode

    return [NodeWithScore(node=TextNode(text=text, id_=str(n)), score=0.5) for n, text in enumerate(TEXTS)]


def places(found) -> list[tuple[int, float]]:
    return [(int(one.node.node_id), one.score) for one in found]


def test_llama_index_cohere(guarded, expected):
    module = pytest.importorskip("llama_index.postprocessor.cohere_rerank")
    rerank = module.CohereRerank(api_key=KEY, base_url=guarded.url, top_n=2)
    assert places(rerank.postprocess_nodes(nodes(), query_str=QUERY)) == expected[:2]


def test_llama_index_jina(guarded, expected):
    module = pytest.importorskip("llama_index.postprocessor.jinaai_rerank")
    rerank = module.JinaRerank(api_key=KEY, base_url=f"{guarded.url}/v1", top_n=2)
    assert places(rerank.postprocess_nodes(nodes(), query_str=QUERY)) == expected[:2]
    with pytest.raises(RuntimeError, match="API key"):
        module.JinaRerank(api_key="wrong", base_url=f"{guarded.url}/v1").postprocess_nodes(nodes(), query_str=QUERY)


def test_llama_index_tei(guarded, expected):
    module = pytest.importorskip("llama_index.postprocessor.tei_rerank")
    for token in (KEY, f"Bearer {KEY}"):
        rerank = module.TextEmbeddingInference(base_url=guarded.url, auth_token=token, top_n=2)
        assert places(rerank.postprocess_nodes(nodes(), query_str=QUERY)) == expected[:2]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl(guarded, expected):
    def curl(path: str, body: dict) -> dict | list:
        command = ["curl", "-sS", "--noproxy", "*", f"{guarded.url}{path}", "-H", f"Authorization: Bearer {KEY}"]
        command += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
        return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    results = curl("/v1/rerank", {"query": QUERY, "documents": TEXTS})["results"]
    assert [(r["index"], r["relevance_score"]) for r in results] == expected
    ranks = curl("/rerank", {"query": QUERY, "texts": TEXTS})
    assert [(r["index"], r["score"]) for r in ranks] == expected
    pruned = curl("/v1/prune", {"query": QUERY, "text": " ".join(TEXTS), "max_tokens": 30})
    assert pruned["text"] == guarded.scorer.prune(QUERY, " ".join(TEXTS), max_tokens=30).text
