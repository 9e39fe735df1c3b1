"""API keys: who is let in, and that a key is seen nowhere."""

from __future__ import annotations

import json
import re

import pytest

from qr_core import DocumentCache, InputError, QRScorer
from qr_core.server import ApiKeys
from qr_core.server.auth import Gate
from qr_core.server.run import check_exposure
from tests.server.child import TINY

KEY, OTHER = "k-3f9a1c77", "k-00b1d2e3"
BODY = {"query": "q", "documents": ["a lamp", "an oven"]}


def test_only_holders_of_a_key_are_served(serve, log_lines):
    server = serve(keys=ApiKeys([("anna", KEY), ("ben", OTHER)]))
    asked = 0

    def status(*headers: tuple[str, str], path="/v1/rerank") -> int:
        nonlocal asked
        asked += 1
        answer = server.post(path, BODY | {"texts": ["a"], "top_k": 1}, headers=list(headers))
        if answer.status_code == 401:
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.json()["error_type"] == "unauthorized"
        assert KEY not in answer.text
        assert KEY not in str(answer.headers)
        return answer.status_code

    for path in ("/v1/rerank", "/v2/rerank", "/rerank"):
        assert status(path=path) == 401
        assert status(("authorization", f"Bearer {KEY}"), path=path) == 200
    assert status(("authorization", f"bearer  {OTHER}")) == 200
    assert status(("authorization", KEY)) == 200  # as LlamaIndex's client of Text Embeddings Inference sends it
    for wrong in (KEY[:-1], f"{KEY}x", KEY.upper(), "", "Bearer", f"Basic {KEY}", f"Bearer {KEY},{OTHER}", "\u00e9"):
        assert status(("authorization", wrong.encode("latin-1"))) == 401
    assert status(("authorization", f"Bearer {KEY}"), ("authorization", f"Bearer {KEY}")) == 401
    assert server.post(f"/v1/rerank?api_key={KEY}", BODY).status_code == 401
    for path, expected in (("/health", 200), ("/ready", 200), ("/openapi.json", 200), ("/metrics", 401), ("/x", 401)):
        assert server.client.get(path).status_code == expected
    assert server.client.get("/metrics", headers={"authorization": f"Bearer {KEY}"}).status_code == 200
    lines = log_lines(asked)
    assert {line["client"] for line in lines if line["event"] == "request"} >= {"anna", "ben", None}
    own = json.dumps([line for line in lines if line["logger"].startswith("qr_core")])
    assert KEY not in own
    assert OTHER not in own


def test_a_body_without_a_key_is_not_parsed(serve, monkeypatch):
    server = serve(keys=ApiKeys([("anna", KEY)]))
    assert server.client.post("/v1/rerank", content=b"{" * 100_000).status_code == 401


def test_each_client_has_its_own_partition(serve, monkeypatch):
    from contextlib import contextmanager

    from qr_core.server import service

    entered = []

    @contextmanager
    def partition(client):
        entered.append(client)
        yield

    monkeypatch.setattr(service, "cache_partition", partition)
    server = serve(keys=ApiKeys([("anna", KEY), ("ben", OTHER), ("anna", "second")]))
    for key in (KEY, OTHER, "second"):
        assert server.post("/v1/rerank", BODY, headers={"authorization": key}).status_code == 200
    assert entered == ["anna", "ben", "anna"]


def test_clients_share_no_document_of_the_independent_layout(serve):
    kept = DocumentCache()
    scorer = QRScorer.from_pretrained(TINY[1], TINY[3], layout="independent", device="cpu", document_cache=kept)
    server = serve(scorer, keys=ApiKeys([("anna", KEY), ("ben", OTHER)]))
    counts = []
    for key in (KEY, KEY, OTHER, OTHER):
        assert server.post("/v1/rerank", BODY, headers={"authorization": key}).status_code == 200
        counts.append(len(kept))
    assert counts[0] == counts[1] < counts[2] == counts[3]


def test_every_key_is_compared_whole(monkeypatch):
    from qr_core.server import keys as module

    compared = []

    def compare(one, other):
        compared.append((len(one), len(other)))
        return one == other

    monkeypatch.setattr(module.hmac, "compare_digest", compare)
    keys = ApiKeys([("a", KEY), ("b", OTHER), ("c", "short")])
    for offered in (KEY, "short", "x", "", "x" * 1000):
        keys.client(f"Bearer {offered}".encode())
    assert compared == [(32, 32)] * 15


def test_keys_from_file_and_environment(tmp_path):
    file = tmp_path / "keys"
    file.write_text(f"# ours\n\n{KEY}\nben {OTHER}\n")
    keys = ApiKeys.load(file, {"QRHEAD_API_KEYS": "third,carl fourth"})
    named = [keys.client(key.encode()) for key in (KEY, OTHER, "third", "fourth", "ben", "#")]
    assert named == ["client-1", "ben", "client-2", "carl", None, None]
    assert repr(keys) == "ApiKeys(4)"
    assert len(ApiKeys.load(None, {})) == 0
    for text in (f"ben {KEY} extra", "", "# none\n"):
        file.write_text(text)
        with pytest.raises(InputError) as caught:
            ApiKeys.load(file, {})
        assert KEY not in str(caught.value)
        assert str(file) in str(caught.value)
    with pytest.raises(InputError, match="QRHEAD_API_KEYS holds no API key"):
        ApiKeys.load(None, {"QRHEAD_API_KEYS": " "})
    with pytest.raises(InputError, match="cannot read"):
        ApiKeys.load(tmp_path / "absent", {})


def test_two_keys_are_never_one_client(tmp_path):
    file = tmp_path / "keys"
    file.write_text("one\ntwo\nben three\nben four\n")
    keys = ApiKeys.load(file, {"QRHEAD_API_KEYS": "five,six,one"})
    named = [keys.client(key.encode()) for key in ("one", "two", "five", "six", "three", "four")]
    assert named == ["client-1", "client-2", "client-3", "client-4", "ben", "ben"]
    for variable, words in (
        ("ben other", f"{file} and QRHEAD_API_KEYS both have a client 'ben'"),
        ("client-2 other", "QRHEAD_API_KEYS names a client 'client-2', as keys without a name"),
        ("carl three", "has the same API key as another"),
    ):
        with pytest.raises(InputError, match=re.escape(words)) as caught:
            ApiKeys.load(file, {"QRHEAD_API_KEYS": variable})
        assert "three" not in str(caught.value)
        assert "other" not in str(caught.value).replace("another", "")
    with pytest.raises(InputError, match="same API key"):
        ApiKeys([("anna", KEY), ("ben", KEY)])


def test_other_machines_are_not_served_without_keys():
    for host in ("127.0.0.1", "127.8.8.8", "localhost", "::1"):
        check_exposure(host, 0, False)
    for host in ("0.0.0.0", "::", "192.0.2.1", "10.0.0.1"):  # noqa: S104
        with pytest.raises(InputError, match="can be reached from other machines"):
            check_exposure(host, 0, False)
        check_exposure(host, 1, False)
        check_exposure(host, 0, True)
    with pytest.raises(InputError, match="is not known"):
        check_exposure("no such host", 0, False)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--host", "::"], "can be reached from other machines"),
        (["--api-key-file", "absent"], "cannot read absent"),
        (["--host", "192.0.2.1", "--allow-open"], "cannot listen on 192.0.2.1"),
        (["--max-queue", "0"], "max_queue is 0"),
        (["--grace", "-1"], "grace is -1"),
        (["--max-body-bytes", "10", "--max-buffered-bytes", "9"], "max_buffered_bytes is 9"),
        (["--model", "absent/folder"], "absent/folder"),
    ],
)
def test_bad_options_are_one_line(run, monkeypatch, options, words):
    monkeypatch.setattr("qr_core.server.logs.setup", lambda *_: None)
    status, out, err = run("serve", "--port", "0", *([] if "--model" in options else TINY), *options)
    assert (status, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1


def test_the_gate_stands_before_the_limits(live):
    layers = [layer.cls.__name__ for layer in live.app.user_middleware]
    assert layers == ["Observe", "Hosts", "Gate", "Limits"]
    assert Gate.__name__ in layers
