"""Connections: how long answers may wait to be taken in, whose connections they are, and refusals without a request."""

from __future__ import annotations

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import httpx
import pytest

from qr_core.server.dialects import dialect
from qr_core.server.held import Held
from qr_core.types import Hit
from tests.helpers import QUERY
from tests.server.conftest import until

BODY = {"query": QUERY, "documents": ["a lamp", "an oven"]}
LARGE = {"query": "q", "texts": ["a" * 3_000_000], "return_text": True}


def connect(server, address: str = "127.0.0.1", receive_buffer: int | None = None) -> socket.socket:
    connection = socket.socket()
    if receive_buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.settimeout(20)
    connection.bind((address, 0))
    connection.connect(("127.0.0.1", server.port))
    return connection


def post(connection: socket.socket, path: str, body: dict) -> None:
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(content)}"
    )
    connection.sendall(head.encode() + b"\r\n\r\n" + content)


def client_at(server, address: str) -> httpx.Client:
    transport = httpx.HTTPTransport(local_address=address)
    return httpx.Client(base_url=server.url, transport=transport, timeout=30)


def connections(server) -> int:
    return len(server.server.server_state.connections)


@pytest.fixture
def echo(serve, monkeypatch):
    """Start servers that give back every document, unscored."""

    def start(**settings):
        server = serve(max_tokens=10**7, **settings)
        monkeypatch.setattr(
            server.scorer,
            "rank",
            lambda _, documents, **__: [Hit(n, 1.0, 1.0, document) for n, document in enumerate(documents)],
        )
        monkeypatch.setattr(server.service, "_count", lambda *_: 0)
        return server

    return start


def test_an_answer_taken_in_drips_ends(echo):
    """Each time that it is looked at much has moved, but not all."""
    server = echo(body_timeout=1.0, max_body_bytes=2**24)
    size = 12_000_000
    with connect(server) as connection:
        post(connection, "/rerank", {**LARGE, "texts": ["a" * size]})
        until(lambda: server.service.in_flight == 1)
        taken, part = 0, b"more"
        while part and taken < size:
            try:
                part = connection.recv(20_000)
            except ConnectionError:
                part = b""
            taken += len(part)
            time.sleep(0.005)
    assert 0 < taken < size
    until(lambda: server.service.in_flight == connections(server) == 0)


def test_an_answer_is_in_flight_until_it_is_taken_in(echo):
    server = echo()
    with connect(server, receive_buffer=4096) as connection:
        post(connection, "/rerank", LARGE)
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
        for _ in range(5):
            assert server.client.get("/health").status_code == 200  # so all that could be done has been done
        until(lambda: server.service.in_flight == 1)
        taken = 100
        while taken < 3_000_000:
            taken += len(connection.recv(2**20))
        until(lambda: server.service.in_flight == 0)


def test_answers_that_wait_are_held_for_their_client(echo):
    """Two addresses: one holds its share, the next fills the whole, and each refusal is JSON."""
    server = echo(max_body_bytes=4_000_000, max_buffered_bytes=10_000_000)
    with connect(server, receive_buffer=4096) as first, client_at(server, "127.0.0.2") as other:
        post(first, "/rerank", LARGE)
        assert first.recv(100).startswith(b"HTTP/1.1 200")
        refused = server.post("/rerank", LARGE)  # its body passes the share of the address
        assert refused.status_code == 429
        assert "too many bytes" in refused.json()["error"]
        refused = other.post("/rerank", json=LARGE)  # its body fits, its answer does not
        assert refused.status_code == 503
        assert "too many answers" in refused.json()["error"]
        assert "retry-after" in refused.headers
        assert other.post("/rerank", json={"query": "q", "texts": ["a"]}).status_code == 200
    until(lambda: server.service.in_flight == 0)
    assert server.post("/rerank", LARGE).status_code == 200


def test_what_is_held_is_counted_by_client():
    held = Held(10, 6)
    assert held.take("a", 6)
    assert not held.take("a", 1)
    assert held.take("b", 4)
    assert not held.take("c", 1)
    held.give_back("a", 6)
    assert held.take("c", 6)
    assert held.total == 10
    held.give_back("b", 4)
    held.give_back("c", 6)
    assert (held.total, dict(held._of)) == (0, {})


def test_one_address_cannot_hold_all_connections(serve, hold):
    """Another one gets the place of an idle connection; what is being answered is let be."""
    server = serve(max_connections=6)
    held = hold(server)
    with ThreadPoolExecutor(1) as pool, connect(server) as working:
        post(working, "/v1/rerank", BODY)
        until(lambda: held.begun == 1)
        idle = [connect(server) for _ in range(5)]
        until(lambda: connections(server) == 6)
        with client_at(server, "127.0.0.2") as other:
            assert other.get("/health").status_code == 200
            asked = pool.submit(other.post, "/v1/rerank", json=BODY)
            until(lambda: server.service.queue.waiting == 1)
            held.go.set()
            assert asked.result().status_code == 200
        assert working.recv(65536).startswith(b"HTTP/1.1 200")
        assert idle[-1].recv(1) == b""  # the latest made room; all others are open
        for one in idle[:-1]:
            one.settimeout(0.01)
            with pytest.raises(TimeoutError):
                one.recv(1)
    for one in idle:
        one.close()


def test_connections_above_the_limit_are_told_so_in_json(serve):
    server = serve(max_connections=4)
    idle = [connect(server) for _ in range(4)]
    until(lambda: connections(server) == 4)
    refused = server.post("/v1/rerank", BODY)
    assert refused.status_code == 503
    assert "too many connections" in refused.json()["error"]
    assert refused.headers["retry-after"] == "5"
    for one in idle:
        one.close()
    until(lambda: connections(server) == 0)
    assert server.post("/v1/rerank", BODY).status_code == 200


def test_connections_far_above_the_limit_are_closed(serve, monkeypatch):
    monkeypatch.setattr("qr_core.server.patience.SPARE", 3)
    server = serve(max_connections=4)
    opened = [connect(server) for _ in range(12)]
    for one in opened[7:]:
        with suppress(ConnectionError):
            assert one.recv(1) == b""
    assert connections(server) == 7
    for one in opened:
        one.close()


@pytest.mark.parametrize("request_", [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nx: " + b"a" * 200_000 + b"\r\n\r\n"])
def test_what_is_no_http_is_refused_in_json(live, request_):
    with connect(live) as connection:
        connection.sendall(request_)
        answer = b""
        with suppress(ConnectionError):
            while part := connection.recv(65536):
                answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400")
    assert b"application/json" in head
    found = json.loads(body)
    assert found["error"] == found["message"] == "Invalid HTTP request received."
    assert f"x-request-id: {found['id']}".encode() in head


def test_large_bodies_are_parsed_away_from_the_loop(serve, monkeypatch):
    """One at a time, while everything else is answered."""
    server = serve()
    go, threads = threading.Event(), []
    real = dialect.read_body

    def read_body(*arguments):
        threads.append(threading.current_thread().name)
        assert go.wait(20)
        return real(*arguments)

    monkeypatch.setattr(dialect, "read_body", read_body)
    large = {**BODY, "ignored": "a" * dialect.SMALL_BODY}
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(server.post, "/v1/rerank", large) for _ in range(2)]
        until(lambda: len(threads) == 1)
        assert server.client.get("/health").status_code == 200
        until(lambda: server.service.in_flight == 2)
        assert len(threads) == 1
        go.set()
        assert [one.result().status_code for one in asked] == [200, 200]
    assert {name.rpartition("_")[0] for name in threads} == {"qrhead-parse"}


@pytest.mark.parametrize(
    ("path", "field"), [("/v1/rerank", "documents"), ("/rerank", "texts"), ("/v1/prune", "documents")]
)
def test_documents_are_counted_before_they_are_looked_at(live, path, field):
    """Fewer than a thousand would be refused for what they are."""
    answer = live.post(path, {"query": 5, field: [5] * 1_000_000, "top_k": 1})
    assert answer.status_code == 422
    assert answer.json()["error"] == "there are 1000000 documents: at most 1000 are allowed"
