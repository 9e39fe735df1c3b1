"""Dialects: what one file and one entry give; and which of a protocol's fields have no effect here."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient
from pydantic import BaseModel

from qr_core.errors import InputError
from qr_core.server import ApiKeys, Settings, create_app
from qr_core.server.answers import Refusal
from qr_core.server.dialects import DIALECTS, Ask, Dialect, new_router
from qr_core.server.dialects.fields import Body
from qr_core.server.jobs import RankJob
from qr_core.types import Document
from tests.helpers import DOCUMENTS, QUERY

TEXTS = [document.text for document in DOCUMENTS]


class Question(Body):
    ask: str
    among: list[str]


class Problem(BaseModel):
    problem: str

    @classmethod
    def of(cls, refusal: Refusal, request_id: str) -> Problem:
        return cls(problem=f"{refusal.status} {refusal.kind}: {refusal.message}")


router = new_router()


@router.post("/best")
async def best(body: Question, ask: Ask) -> str:
    ranking = await ask(RankJob(body.ask, [Document(text) for text in body.among], top_k=1))
    return ranking[0].document.text


@pytest.fixture
def added():
    DIALECTS.add("throw-away", Dialect(router, Problem))
    yield
    DIALECTS.remove("throw-away")


def test_one_entry_is_all_that_another_dialect_takes(added, tiny):
    with TestClient(create_app(tiny, Settings(max_documents=3))) as client:
        expected = tiny.rank(QUERY, TEXTS)[0].document.text
        answer = client.post("/best", json={"ask": QUERY, "among": TEXTS})
        assert (answer.status_code, answer.json()) == (200, expected)
        assert 'qrhead_documents_total{endpoint="/best"} 3.0' in client.get("/metrics").text.splitlines()
        schema = client.get("/openapi.json").json()["paths"]["/best"]["post"]
        assert schema["responses"]["429"]["content"]["application/json"]["schema"]["$ref"].endswith("/Problem")


@pytest.mark.parametrize(
    ("request_", "problem"),
    [
        ({"json": {"ask": 5, "among": []}}, "422 validation: ask: Input should be a valid string"),
        ({"json": {"ask": " ", "among": ["a"]}}, "422 validation: the query is empty"),
        ({"json": {"ask": "q", "among": ["a"] * 4}}, "422 validation: there are 4 documents: at most 3 are allowed"),
        ({"content": b"q"}, "415 validation: send JSON, with content-type: application/json"),
        ({"content": b"{", "headers": {"content-type": "application/json"}}, "422 validation: body: not valid JSON"),
    ],
)
def test_its_errors_are_written_its_way_whichever_layer_refuses(added, tiny, request_, problem):
    with TestClient(create_app(tiny, Settings(max_documents=3))) as client:
        answer = client.post("/best", **request_)
        assert answer.status_code == int(problem[:3])
        assert list(answer.json()) == ["problem"]
        assert answer.json()["problem"].startswith(problem)
        assert client.get("/best").json() == {"problem": "405 not_found: Method Not Allowed"}
        assert "detail" in client.get("/elsewhere").json()


def test_it_is_behind_the_gate(added, tiny):
    with TestClient(create_app(tiny, Settings(keys=ApiKeys([("anna", "key")])))) as client:
        refused = client.post("/best", json={"ask": QUERY, "among": TEXTS})
        assert (refused.status_code, list(refused.json())) == (401, ["problem"])
        headers = {"authorization": "Bearer key"}
        assert client.post("/best", json={"ask": QUERY, "among": TEXTS}, headers=headers).status_code == 200


def test_without_the_entry_there_is_nothing(tiny):
    with TestClient(create_app(tiny)) as client:
        assert client.post("/best", json={"ask": QUERY, "among": TEXTS}).status_code == 404
    with pytest.raises(InputError, match="use one of cohere, tei, qrhead"):
        DIALECTS["throw-away"]


def test_two_dialects_cannot_share_a_path(added, tiny):
    DIALECTS.add("second", Dialect(router))
    try:
        with pytest.raises(ValueError, match=r"'second' has the path /best, which is taken"):
            create_app(tiny)
    finally:
        DIALECTS.remove("second")


@pytest.mark.parametrize(
    ("path", "body", "field", "values"),
    [
        ("/rerank", {"texts": TEXTS}, "truncate", [None, True, False]),
        ("/rerank", {"texts": TEXTS}, "truncation_direction", ["Right", "Left", "right", "left"]),
        ("/v1/rerank", {"documents": TEXTS}, "model", [None, "rerank-v3.5"]),
    ],
)
def test_fields_without_effect_say_so_and_are_still_checked(live, path, body, field, values):
    def answer(**more):
        found = live.post(path, {"query": QUERY, **body, **more}).json()
        return found["results"] if isinstance(found, dict) else found

    assert all(answer(**{field: value}) == answer() for value in values)
    assert live.post(path, {"query": QUERY, **body, field: 5}).status_code == 422
    schema = live.app.openapi()
    (content,) = schema["paths"][path]["post"]["requestBody"]["content"].values()
    model = schema["components"]["schemas"][content["schema"]["$ref"].rpartition("/")[2]]
    assert "gnored" in model["properties"][field]["description"]
