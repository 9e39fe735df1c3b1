"""Limits: sizes, numbers, tokens, time and the queue; each refusal leaves the server as it was."""

from __future__ import annotations

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from tests.helpers import QUERY
from tests.server.conftest import until

BODY = {"query": QUERY, "documents": ["a lamp", "an oven"]}


def head(length: str, path: str = "/v1/rerank") -> bytes:
    """Head of a request whose body is announced by the header `length`."""
    return f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{length}\r\n\r\n".encode()


def connect(server) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port))
    connection.settimeout(20)
    return connection


def whole_answer(connection: socket.socket) -> bytes:
    """What comes until the server closes."""
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


def works(server) -> bool:
    return server.post("/v1/rerank", BODY).status_code == 200


def test_bodies_too_large(serve):
    server = serve(max_body_bytes=1000, max_buffered_bytes=5000)
    fitting = json.dumps(BODY).encode().ljust(1000)
    headers = {"content-type": "application/json"}
    assert server.client.post("/v1/rerank", content=fitting, headers=headers).status_code == 200
    answer = server.client.post("/v1/rerank", content=fitting + b" ", headers=headers)
    assert answer.status_code == 413
    assert "larger than 1000 bytes" in answer.json()["error"]
    big = server.client.post("/v1/rerank", content=b" " * 5_000_000, headers=headers)
    assert big.status_code == 413  # and not a broken connection
    pieces = server.client.post("/v1/rerank", content=iter([b" " * 600] * 50), headers=headers)
    assert pieces.status_code == 413
    assert works(server)


def test_a_body_too_large_is_not_read(serve):
    """Announced: refused at once. Not announced: refused at the first byte too many."""
    server = serve(max_body_bytes=1000, max_buffered_bytes=5000)
    with connect(server) as connection:
        connection.sendall(head("content-length: 999999999999"))
        assert connection.recv(65536).startswith(b"HTTP/1.1 413")
    with connect(server) as connection:
        connection.sendall(head("transfer-encoding: chunked") + b"3e9\r\n" + b" " * 1001)
        assert connection.recv(65536).startswith(b"HTTP/1.1 413")
    with connect(server) as connection:  # an endless body is taken in for a moment only
        connection.sendall(head("transfer-encoding: chunked"))
        end = time.monotonic() + 15
        with suppress(ConnectionError):
            while time.monotonic() < end:
                connection.sendall(b"8000\r\n" + b" " * 32768 + b"\r\n")
        assert time.monotonic() < end
    assert works(server)


def test_all_bodies_together_are_bounded(serve):
    server = serve(max_body_bytes=1000, max_buffered_bytes=2500)
    waiting = [connect(server) for _ in range(2)]
    for connection in waiting:
        connection.sendall(head("content-length: 1000") + b" " * 900)
    limits = server.service
    until(lambda: limits.in_flight == 2)
    with connect(server) as third:
        third.sendall(head("content-length: 1000") + b" " * 900)
        answer = third.recv(65536)
    assert answer.startswith(b"HTTP/1.1 429")
    assert b"retry-after: 5" in answer
    for connection in waiting:
        connection.close()
    until(lambda: limits.in_flight == 0)
    assert works(server)


def test_documents_and_tokens(serve):
    server = serve(max_documents=3, max_tokens=40)
    answer = server.post("/v1/rerank", {"query": "q", "documents": ["a"] * 4})
    assert answer.status_code == 422
    assert "there are 4 documents: at most 3" in answer.json()["error"]
    for path, more in (
        ("/v1/rerank", {"documents": ["a " * 30]}),
        ("/v1/rerank", {"documents": [{"text": "a", "title": "b " * 30}]}),
        ("/rerank", {"texts": ["a " * 30]}),
        ("/v1/prune", {"text": "a " * 30, "top_k": 1}),
    ):
        answer = server.post(path, {"query": "which lamp ?" * 2, **more})
        assert answer.status_code == 422
        assert "more than the 40 tokens allowed" in answer.json()["error"]
    assert server.post("/v1/rerank", {"query": "q", "documents": ["a", "b"]}).status_code == 200


def test_a_query_too_long_for_the_model_is_422(serve, golden):
    from tests.helpers import golden_scorer

    short = golden_scorer(golden["llama"], golden["llama"]["cases"][0], max_prompt_tokens=150)
    answer = serve(short).post("/v1/rerank", {"query": "lamp " * 200, "documents": ["a"]})
    assert answer.status_code == 422
    assert "the query and the prompt around it take" in answer.json()["error"]


def test_a_full_queue_is_429_and_those_in_it_are_answered(serve, hold):
    server = serve(max_queue=2)
    held = hold(server)
    with ThreadPoolExecutor(8) as pool:
        running = pool.submit(server.post, "/v1/rerank", BODY)
        until(lambda: held.begun == 1)
        queued = [pool.submit(server.post, "/v1/rerank", BODY) for _ in range(2)]
        until(lambda: server.service.queue.waiting == 2)
        for _ in range(3):
            answer = server.post("/v1/rerank", BODY)
            assert answer.status_code == 429
            assert int(answer.headers["retry-after"]) >= 1
            assert "2 requests are waiting already" in answer.json()["error"]
        large = {"query": QUERY, "documents": ["a" * 1_000_000]}
        assert server.post("/v1/rerank", large).status_code == 429
        held.go.set()
        assert [one.result().status_code for one in [running, *queued]] == [200] * 3
    assert works(server)


def test_no_turn_in_time_is_503_and_no_end_in_time_is_504(serve, hold):
    server = serve(request_timeout=0.6)
    held = hold(server)
    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(server.post, "/v1/rerank", BODY)
        until(lambda: held.begun == 1)
        held.checks = False  # in a forward pass that cannot be left
        waiting = pool.submit(server.post, "/v1/rerank", BODY)
        assert running.result().status_code == 504
        late = waiting.result()
    assert late.status_code == 503
    assert int(late.headers["retry-after"]) >= 1
    assert "its turn did not come in time" in late.json()["error"]
    held.go.set()
    assert works(server)
    assert held.begun == 2  # the one that waited in vain never had a turn


def test_a_turn_that_nobody_waits_for_ends_at_its_next_check(serve, hold):
    server = serve(request_timeout=0.5)
    held = hold(server)
    assert server.post("/v1/rerank", BODY).status_code == 504
    until(lambda: not server.service.queue.busy)
    held.go.set()
    assert works(server)


def test_long_input_is_left_between_chunks(serve, monkeypatch):
    """A request given up in mid-scoring leaves the model as it was."""
    monkeypatch.setattr("qr_core.attention.prefill.chunk_rows", lambda *_: 8)
    server = serve(request_timeout=0.4)
    expected = server.scorer.rank(QUERY, BODY["documents"])
    real, slow = server.scorer.reader.read_many, threading.Event()

    def read(prompts, cache=None, progress=None):
        def late(tokens):
            if slow.is_set():
                time.sleep(0.1)
            progress(tokens)

        return real(prompts, cache, late)

    monkeypatch.setattr(server.scorer.reader, "read_many", read)
    slow.set()
    assert server.post("/v1/rerank", {"query": QUERY, "documents": ["lamp " * 100]}).status_code == 504
    until(lambda: not server.service.queue.busy, 1)
    slow.clear()
    results = server.post("/v1/rerank", BODY).json()["results"]
    assert [(r["index"], r["relevance_score"]) for r in results] == [(h.index, h.relevance) for h in expected]


def test_clients_that_go_away_lose_their_place(serve, hold, log_lines):
    server = serve()
    held = hold(server)
    body = json.dumps(BODY).encode()
    connections = [connect(server) for _ in range(4)]
    for connection in connections:
        connection.sendall(head(f"content-length: {len(body)}") + body)
    until(lambda: held.begun == 1 and server.service.queue.waiting == 3)
    for connection in connections[1:3]:
        connection.close()
    until(lambda: server.service.queue.waiting == 1)
    connections[0].close()  # its turn, which is left at the next check
    until(lambda: held.begun == 2)
    held.go.set()
    assert connections[3].recv(65536).startswith(b"HTTP/1.1 200")
    connections[3].close()
    assert works(server)
    assert held.begun == 3
    statuses = sorted(line["status"] for line in log_lines(5) if line["event"] == "request")
    assert statuses == [200, 200, 499, 499, 499]


def test_clients_that_go_away_while_they_send(serve, log_lines):
    server = serve()
    for part in (b"", b'{"query"'):
        with connect(server) as connection:
            connection.sendall(head("content-length: 1000") + part)
            until(lambda: server.service.in_flight == 1)
        until(lambda: server.service.in_flight == 0)
    assert works(server)
    assert "Traceback" not in json.dumps(log_lines(3))


def test_slow_clients(serve):
    """A body that trickles in, a head that never comes, an answer that nobody takes: all are ended."""
    server = serve(body_timeout=0.5, max_body_bytes=50_000_000, max_tokens=10**9)
    with connect(server) as connection:
        connection.sendall(head("content-length: 1000"))
        began = time.monotonic()
        connection.setblocking(False)
        answer = b""
        while not answer and time.monotonic() - began < 10:
            connection.send(b" ")
            time.sleep(0.05)
            with suppress(BlockingIOError):
                answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 408")
        assert time.monotonic() - began < 3
    for beginning in (b"", b"POST /v1/rerank HTT", head("content-length: 5")[:-2]):
        with connect(server) as connection:
            connection.sendall(beginning)
            assert connection.recv(65536) == b""
    assert works(server)


def test_an_answer_that_nobody_takes_in(serve, monkeypatch):
    server = serve(body_timeout=0.5)
    monkeypatch.setattr(server.scorer, "rank", lambda query, documents, **_: Everything(documents))
    monkeypatch.setattr(server.service, "_count", lambda *_: 0)
    text = "a" * 7_000_000
    body = json.dumps({"query": "q", "texts": [text], "return_text": True}).encode()
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", server.port))
        connection.sendall(head(f"content-length: {len(body)}", "/rerank") + body)
        until(lambda: len(server.server.server_state.connections) == 1)
        until(lambda: not server.server.server_state.connections)


class Everything(list):
    """A ranking that gives every document back."""

    def __init__(self, documents) -> None:
        from qr_core.types import Hit

        super().__init__(Hit(n, 1.0, 1.0, document) for n, document in enumerate(documents))


def test_many_at_once_get_their_own_answers(serve):
    server = serve(max_queue=100)
    expected = {n: server.scorer.rank(QUERY, [f"lamp {n}", "an oven", f"{n} ovens"]) for n in range(24)}

    def ask(n):
        answer = server.post("/v1/rerank", {"query": QUERY, "documents": [f"lamp {n}", "an oven", f"{n} ovens"]})
        return [(r["index"], r["relevance_score"]) for r in answer.json()["results"]]

    with ThreadPoolExecutor(24) as pool:
        for n, found in zip(expected, pool.map(ask, expected), strict=True):
            assert found == [(hit.index, hit.relevance) for hit in expected[n]]
