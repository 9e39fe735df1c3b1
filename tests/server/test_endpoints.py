"""Each endpoint's contract, and that its results are the library's own."""

from __future__ import annotations

import json

import pytest

from qr_core.version import __version__
from tests.helpers import DOCUMENTS, QUERY
from tests.server.conftest import serving

TEXTS = [document.text for document in DOCUMENTS]
OBJECTS = [{"text": d.text, "title": d.title, "id": f"d{n}"} for n, d in enumerate(DOCUMENTS)]
LONG = "\n\n".join(TEXTS * 4)


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank"])
@pytest.mark.parametrize("documents", [TEXTS, OBJECTS, [TEXTS[0], OBJECTS[1], {"text": TEXTS[2], "url": "x"}]])
def test_rerank_equals_the_library(live, path, documents):
    answer = live.post(path, {"query": QUERY, "documents": documents, "model": "rerank-v3.5"})
    assert answer.status_code == 200
    ranking = live.scorer.rank(QUERY, documents)
    body = answer.json()
    assert [(r["index"], r["relevance_score"]) for r in body["results"]] == [(h.index, h.relevance) for h in ranking]
    assert all(0 <= r["relevance_score"] <= 1 for r in body["results"])
    assert body["meta"] == {"api_version": {"version": path[2]}, "segments": 1, "windows": 1, "rounds": 1}
    assert body["model"] == "tiny-llama"
    assert body["usage"]["total_tokens"] > 10
    assert body["id"] == answer.headers["x-request-id"]
    assert "document" not in body["results"][0]


def test_top_n_and_return_documents(live):
    body = {"query": QUERY, "documents": OBJECTS, "top_n": 2, "return_documents": True}
    results = live.post("/v1/rerank", body).json()["results"]
    assert len(results) == 2
    for result in results:
        sent = {key: value for key, value in OBJECTS[result["index"]].items() if value is not None}
        assert result["document"] == sent
    texts = {"query": QUERY, "documents": TEXTS, "return_documents": True}
    for result in live.post("/v2/rerank", texts).json()["results"]:
        assert result["document"] == {"text": TEXTS[result["index"]]}
    assert len(live.post("/v1/rerank", body | {"top_n": 99}).json()["results"]) == 3


def test_titles_are_read_unless_rank_fields_leave_them_out(live):
    def scores(**more):
        return live.post("/v1/rerank", {"query": QUERY, "documents": OBJECTS, **more}).json()["results"]

    def expected(documents):
        return [{"index": h.index, "relevance_score": h.relevance} for h in live.scorer.rank(QUERY, documents)]

    assert scores() == scores(rank_fields=["title", "text"]) == expected(OBJECTS)
    assert scores(rank_fields=["text"]) == expected(TEXTS) != expected(OBJECTS)


def test_order_of_the_request_and_of_the_server(live, tiny):
    body = {"query": QUERY, "documents": TEXTS}
    reverse = [(h.index, h.relevance) for h in live.scorer.rank(QUERY, TEXTS, order="reversed")]
    given = [(h.index, h.relevance) for h in live.scorer.rank(QUERY, TEXTS)]

    def asked(server, **more):
        results = server.post("/v1/rerank", body | more).json()["results"]
        return [(r["index"], r["relevance_score"]) for r in results]

    assert asked(live) == given != reverse == asked(live, order="reversed")
    with serving(tiny, order="reversed") as reversing:
        assert asked(reversing) == reverse
        assert asked(reversing, order="given") == given


def test_how_much_the_order_of_the_documents_counts(live, tiny):
    texts = TEXTS[::-1]
    body = {"query": QUERY, "documents": texts}

    def asked(server, **more):
        results = server.post("/v1/rerank", body | more).json()["results"]
        return [(r["index"], r["relevance_score"]) for r in results]

    def expected(weight):
        return [(h.index, h.relevance) for h in tiny.with_options(retrieval_weight=weight).rank(QUERY, texts)]

    assert asked(live) == asked(live, retrieval_weight=0) == expected(0)
    assert asked(live, retrieval_weight=0.5) == expected(0.5)
    assert [index for index, _ in asked(live, retrieval_weight=1)] == [0, 1, 2] != [i for i, _ in expected(0)]
    with serving(tiny.with_options(retrieval_weight=1.0)) as weighing:
        assert asked(weighing) == expected(1)
        assert asked(weighing, retrieval_weight=0) == expected(0)
        ranks = weighing.post("/rerank", {"query": QUERY, "texts": texts}).json()
        assert [rank["index"] for rank in ranks] == [0, 1, 2]
    for wrong in (-0.1, 1.5, "0.5", True):
        answer = live.post("/v2/rerank", body | {"retrieval_weight": wrong})
        assert answer.status_code == 422
        assert "retrieval_weight" in answer.json()["message"]


def test_text_embeddings_inference(live):
    ranking = live.scorer.rank(QUERY, TEXTS)
    answer = live.post("/rerank", {"query": QUERY, "texts": TEXTS, "truncate": True, "truncation_direction": "Right"})
    assert answer.json() == [{"index": h.index, "score": h.relevance} for h in ranking]
    answer = live.post("/rerank", {"query": QUERY, "texts": TEXTS, "raw_scores": True, "return_text": True})
    assert answer.json() == [{"index": h.index, "score": h.score, "text": TEXTS[h.index]} for h in ranking]


@pytest.mark.parametrize(
    "more",
    [
        {"text": LONG, "max_tokens": 60},
        {"text": LONG, "top_k": 2, "unit": "paragraph", "ellipsis": "[...]"},
        {"documents": OBJECTS, "min_relevance": 0.1, "min_keep": 1, "titles": True},
        {"documents": TEXTS, "top_k": 1, "unit": "document", "order": "reversed"},
        {"text": f"# Lamps\n\n{LONG}", "max_tokens": 90, "text_format": "markdown", "headings": True},
    ],
)
def test_prune_equals_the_library(live, more):
    answer = live.post("/v1/prune", {"query": QUERY, **more})
    assert answer.status_code == 200
    body, options = answer.json(), dict(more)
    pruned = live.scorer.prune(QUERY, options.pop("text", None) or options.pop("documents"), **options)
    assert body["text"] == pruned.text
    assert body["spans"] == pruned.to_dict()["spans"]
    assert [(t["index"], t["text"]) for t in body["texts"]] == list(pruned.texts)
    assert (body["kept_tokens"], body["total_tokens"]) == (pruned.kept_tokens, pruned.total_tokens)
    assert (body["model"], body["segments"], body["windows"]) == ("tiny-llama", 1, 1)


def test_segments_are_told(golden, tiny):
    from tests.helpers import golden_scorer

    short = golden_scorer(golden["llama"], golden["llama"]["cases"][0], max_prompt_tokens=160)
    with serving(short) as server:
        texts = TEXTS * 6
        meta = server.post("/v1/rerank", {"query": QUERY, "documents": texts}).json()["meta"]
        ranking = short.rank(QUERY, texts)
        assert (meta["segments"], meta["rounds"]) == (ranking.segments, ranking.rounds)
        assert meta["windows"] == meta["segments"] > 1


def test_no_documents_are_no_results(live):
    assert live.post("/v1/rerank", {"query": "q", "documents": []}).json()["results"] == []
    assert live.post("/rerank", {"query": "q", "texts": []}).json() == []


def test_health_ready_and_openapi(live):
    get = lambda path: live.client.get(path)  # noqa: E731
    assert get("/health").json() == {"status": "ok", "model": "tiny-llama"}
    assert get("/ready").json() == {"status": "ready", "model": "tiny-llama"}
    schema = get("/openapi.json").json()
    assert schema["info"]["version"] == __version__
    paths = {"/v1/rerank", "/v2/rerank", "/rerank", "/v1/prune", "/health", "/ready", "/metrics"}
    assert set(schema["paths"]) == paths
    assert get("/docs").status_code == 404


def test_metrics(serve):
    server = serve()
    server.post("/v1/rerank", {"query": QUERY, "documents": TEXTS})
    server.post("/v1/rerank", {"query": QUERY})
    server.client.get("/nowhere/<script>")
    answer = server.client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    lines = answer.text.splitlines()
    assert 'qrhead_requests_total{endpoint="/v1/rerank",status="200"} 1.0' in lines
    assert 'qrhead_requests_total{endpoint="/v1/rerank",status="422"} 1.0' in lines
    assert 'qrhead_requests_total{endpoint="other",status="404"} 1.0' in lines
    assert 'qrhead_documents_total{endpoint="/v1/rerank"} 3.0' in lines
    assert 'qrhead_scoring_seconds_count{endpoint="/v1/rerank"} 1.0' in lines
    assert "qrhead_queue_waiting 0.0" in lines
    assert "qrhead_ready 1.0" in lines
    assert "<script>" not in answer.text


def test_errors_stand_under_each_protocols_name(live):
    answer = live.post("/v1/rerank", {"query": " ", "documents": ["a"]})
    assert answer.status_code == 422
    body = answer.json()
    assert body["error_type"] == "validation"
    assert body["error"] == body["message"] == body["detail"]
    assert "the query is empty" in body["error"]
    assert body["id"] == answer.headers["x-request-id"]
    for method, path, status in (("GET", "/v1/rerank", 405), ("POST", "/nowhere", 404)):
        answer = live.client.request(method, path, json={})
        assert answer.status_code == status
        assert set(answer.json()) == set(body)


def test_an_unexpected_error_is_an_id_and_logged_without_text(live, monkeypatch, log_lines):
    def broken(query, documents, **_):
        raise RuntimeError(f"cannot read {query} {documents[0].text}")

    monkeypatch.setattr(live.scorer, "rank", broken)
    answer = live.post("/v1/rerank", {"query": "secret question", "documents": ["secret text"]})
    assert answer.status_code == 500
    assert answer.json()["id"] in answer.json()["error"]
    assert "secret" not in answer.text
    failure, request = log_lines(1, id=answer.json()["id"])
    assert failure["event"] == "failure"
    assert failure["error"] == "builtins.RuntimeError"
    assert failure["id"] == request["id"] == answer.json()["id"]
    assert "broken" in failure["frames"][-1]
    assert "secret" not in json.dumps(log_lines())
    monkeypatch.undo()
    assert live.post("/v1/rerank", {"query": QUERY, "documents": TEXTS}).status_code == 200


def test_request_lines(live, log_lines):
    answer = live.post("/v1/rerank", {"query": "secret question", "documents": ["secret text", "b"]})
    (line,) = log_lines(1, id=answer.headers["x-request-id"])
    assert line["event"] == "request"
    assert (line["endpoint"], line["method"], line["status"], line["documents"]) == ("/v1/rerank", "POST", 200, 2)
    assert line["tokens"] > 2
    assert line["ms"] >= line["scored_ms"] > 0
    assert "secret" not in json.dumps(log_lines())


def test_a_model_that_cannot_be_loaded(tiny, monkeypatch, log_lines):
    """The application lives, says that it is not ready and why, and is ready once a request works."""
    from fastapi.testclient import TestClient

    from qr_core import ModelLoadError
    from qr_core.server import create_app
    from tests.server.conftest import until

    def broken(*_, **__):
        raise ModelLoadError("the weights of x are missing")

    monkeypatch.setattr(tiny, "rank", broken)
    app = create_app(tiny)
    with TestClient(app) as client:
        until(lambda: app.state.service.state == "failed")
        assert client.get("/health").status_code == 200
        answer = client.get("/ready")
        assert (answer.status_code, answer.json()["status"]) == (503, "failed")
        assert "the weights of x are missing" in json.dumps(log_lines())
        assert client.post("/v1/rerank", json={"query": "q", "documents": ["d"]}).status_code == 500
        monkeypatch.undo()
        assert client.post("/v1/rerank", json={"query": "q", "documents": ["d"]}).status_code == 200
        assert client.get("/ready").json()["status"] == "ready"


def test_mounted_below_a_path(tiny):
    """As behind a proxy that forwards some of its paths: endpoints, keys and metrics go by the rest of the path."""
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    from qr_core.server import ApiKeys, Settings, create_app

    outer = FastAPI()
    outer.mount("/ranking", create_app(tiny, Settings(keys=ApiKeys([("anna", "key")]))))
    client = TestClient(outer)
    assert client.get("/ranking/health").status_code == 200
    body = {"query": QUERY, "documents": TEXTS}
    assert client.post("/ranking/v1/rerank", json=body).status_code == 401
    assert client.post("/ranking/v1/rerank", json=body, headers={"authorization": "Bearer key"}).status_code == 200
    text = client.get("/ranking/metrics", headers={"authorization": "Bearer key"}).text
    assert 'qrhead_requests_total{endpoint="/v1/rerank",status="200"} 1.0' in text
