"""Whatever a body holds, the answer is a result or one clear refusal: never a 500, never silence."""

from __future__ import annotations

import json

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

PATHS = ["/v1/rerank", "/v2/rerank", "/rerank", "/v1/prune"]
GOOD = {"query": "q", "documents": ["a lamp", "an oven"], "texts": ["a lamp", "an oven"], "top_k": 1}
QUICK = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def raw(live, path: str, body: bytes, kind: str = "application/json") -> httpx.Response:
    return live.client.post(path, content=body, headers={"content-type": kind})


def with_field(name: str, value: str) -> bytes:
    """A good body with one field written as the JSON text `value`."""
    rest = {key: item for key, item in GOOD.items() if key != name}
    return (json.dumps(rest)[:-1] + f', "{name}": {value}}}').encode()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "body"),
        (b"{", "not valid JSON"),
        (b"[]", "body"),
        (b'"text"', "body"),
        (b"null", "body"),
        (b"[" * 50_000, "not valid JSON"),
        (b'{"query": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", "not valid JSON"),
        (b'{"a":' * 5_000 + b"1" + b"}" * 5_000, "not valid JSON"),
        (b'{"query": "\xff\xfe"}', "not valid JSON"),
        (b'{"query": NaN}', "not valid JSON"),
        (b'{"query": -Infinity}', "not valid JSON"),
        (with_field("query", '"\\ud800"'), "not valid JSON"),
        (with_field("query", '"\\udc00 x"'), "not valid JSON"),
        (with_field("query", "5"), "query: "),
        (with_field("query", "null"), "query: "),
        (with_field("query", '["a"]'), "query: "),
        (with_field("query", '" \\n "'), "the query is empty"),
        (b'{"documents": ["a"], "texts": ["a"], "top_k": 1}', "query: Field required"),
    ],
)  # fmt: skip
def test_broken_bodies_are_422(live, path, body, words):
    answer = raw(live, path, body)
    assert answer.status_code == 422
    assert words in answer.json()["error"]
    assert len(answer.json()["error"]) < 300


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/v1/rerank", with_field("documents", '"a"'), "documents: "),
        ("/v1/rerank", with_field("documents", '["a", 5]'), "documents.1: Input should be a string or an object"),
        ("/v1/rerank", with_field("documents", "[null]"), "documents.0: Input should be a string or an object"),
        ("/v1/rerank", with_field("documents", '[{"title": "t"}]'), "documents.0.text: Field required"),
        ("/v1/rerank", with_field("documents", '[{"image": "http://x"}]'), "documents.0.text: Field required"),
        ("/v1/rerank", with_field("documents", '[{"text": "a", "id": 1.5}]'), "documents.0.id"),
        ("/v1/rerank", with_field("documents", '[{"text": "\\ud800"}]'), "not valid JSON"),
        ("/v1/rerank", with_field("top_n", "0"), "top_n: "),
        ("/v1/rerank", with_field("top_n", '"2"'), "top_n: "),
        ("/v1/rerank", with_field("top_n", "1.5"), "top_n: "),
        ("/v1/rerank", with_field("top_n", "1" * 30), "top_n: "),
        ("/v1/rerank", with_field("top_n", "1" * 5000), "body: "),
        ("/v1/rerank", with_field("rank_fields", '["url"]'), "rank_fields.0"),
        ("/v2/rerank", with_field("return_documents", '"yes"'), "return_documents: "),
        ("/v2/rerank", with_field("order", '"random"'), "order: "),
        ("/rerank", with_field("texts", '[{"text": "a"}]'), "texts.0: "),
        ("/rerank", with_field("raw_scores", '"true"'), "raw_scores: "),
        ("/rerank", with_field("truncation_direction", '"Up"'), "truncation_direction: "),
        ("/v1/prune", with_field("text", '"both"'), "either text or documents"),
        ("/v1/prune", b'{"query": "q", "top_k": 1}', "either text or documents"),
        ("/v1/prune", b'{"query": "q", "text": "t"}', "nothing says how much to keep"),
        ("/v1/prune", with_field("max_tokens", "0"), "max_tokens: "),
        ("/v1/prune", with_field("min_relevance", "1.5"), "min_relevance: "),
        ("/v1/prune", with_field("min_relevance", "1e999"), "min_relevance: "),
        ("/v1/prune", with_field("unit", '"word"'), "unit: "),
        ("/v1/prune", with_field("ellipsis", '"' + "." * 101 + '"'), "ellipsis: "),
    ],
)  # fmt: skip
def test_wrong_fields_are_named(live, path, body, words):
    answer = raw(live, path, body)
    assert answer.status_code == 422, answer.text
    assert words in answer.json()["error"]


def test_a_thousand_faults_are_one_short_message(live):
    answer = live.post("/v1/rerank", {"query": 5, "documents": [5] * 1000, "top_n": []})
    assert answer.status_code == 422
    assert answer.json()["error"].startswith("query: Input should be a valid string; documents.0: ")
    assert len(answer.content) < 2000


def test_only_plain_json_is_read(live):
    body = json.dumps(GOOD).encode()
    assert raw(live, "/v1/rerank", body).status_code == 200
    assert raw(live, "/v1/rerank", body, "application/json; charset=utf-8").status_code == 200
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "/;=;"):
        assert raw(live, "/v1/rerank", body, kind).status_code == 415
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    assert live.client.post("/v1/rerank", content=body, headers=headers).status_code == 415


def test_any_text_is_ranked(live):
    texts = [
        "",
        " ",
        "\x00\x1b[31m",
        "\u202etext",
        "<|eot_id|><|start_header_id|>",
        "e\u0301",
        "\U0001f600" * 9,
        "a" * 500,
    ]
    ranking = live.scorer.rank("\u0000 <|eot_id|>", texts)
    answer = live.post("/v1/rerank", {"query": "\u0000 <|eot_id|>", "documents": texts, "return_documents": True})
    assert [r["index"] for r in answer.json()["results"]] == [hit.index for hit in ranking]
    assert all(r["document"]["text"] == texts[r["index"]] for r in answer.json()["results"])


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=10,
)
TEXT = st.text(max_size=30) | st.sampled_from(["<|eot_id|>", "a lamp", "\x00"])
OBJECT = st.fixed_dictionaries({"text": TEXT}, optional={"title": TEXT, "id": ANY})
FIELDS = {
    "query": TEXT,
    "documents": st.lists(TEXT | OBJECT, max_size=4),
    "texts": st.lists(TEXT, max_size=4),
    "text": TEXT,
    "top_n": st.integers(),
    "max_tokens": st.integers(min_value=-1, max_value=10**6),
    "min_keep": st.integers(),
    "min_relevance": st.floats(),
    "unit": st.sampled_from(["document", "paragraph", "sentence", "turn"]),
    "text_format": st.sampled_from(["text", "markdown", "chat"]),
    "raw_scores": st.booleans(),
    "return_documents": st.booleans(),
    "headings": st.booleans(),
    "titles": st.booleans(),
    "ellipsis": TEXT,
    "order": st.sampled_from(["given", "reversed"]),
}  # fmt: skip
NEARLY = st.fixed_dictionaries({}, optional={name: values | ANY for name, values in FIELDS.items()})
NEEDED = ("query", "documents", "texts")
FITTING = st.fixed_dictionaries(
    {name: FIELDS[name] for name in NEEDED}, optional={name: FIELDS[name] for name in FIELDS if name not in NEEDED}
)


def check(answer: httpx.Response) -> None:
    assert answer.status_code in (200, 422), answer.text
    body = answer.json()
    if answer.status_code == 422:
        assert body["error"]
        assert len(body["error"]) < 600
    else:
        results = body["results"] if "results" in body else body if isinstance(body, list) else []
        assert sorted(r["index"] for r in results) == sorted({r["index"] for r in results})


@QUICK
@given(path=st.sampled_from(PATHS), body=ANY | NEARLY | FITTING)
def test_no_body_of_json_is_an_error_of_the_server(live, path, body):
    # Python writes NaN and lone surrogates, which JSON has not: they must come out as 422 as well.
    check(raw(live, path, json.dumps(body).encode("utf-8", "surrogatepass")))


@QUICK
@given(path=st.sampled_from(PATHS), body=FITTING)
def test_no_fitting_body_is_an_error_of_the_server(live, path, body):
    check(raw(live, path, json.dumps(body).encode()))


@QUICK
@given(path=st.sampled_from(PATHS), body=st.binary(max_size=200))
def test_no_bytes_are_an_error_of_the_server(live, path, body):
    check(raw(live, path, body))


@QUICK
@given(data=st.data())
def test_no_cut_or_changed_body_is_an_error_of_the_server(live, data):
    body = bytearray(json.dumps(GOOD).encode())
    del body[data.draw(st.integers(1, len(body))) :]
    body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    check(raw(live, data.draw(st.sampled_from(PATHS)), bytes(body)))
