"""Attack on a server in a process of its own: hostile bodies at the size limits, slow readers, many connections.

Bounds are generous: they tell a server that stands still, or grows without end, from one that is busy.
"""

from __future__ import annotations

import json
import socket
import time
from contextlib import ExitStack
from itertools import count

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.helpers import QUERY
from tests.server.child import COMMAND, child

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LIMIT = 2**18
"""Bytes of the largest body, so that two hundred of them take a minute or two."""
OPTIONS = ["--max-body-bytes", str(LIMIT), "--max-tokens", "131072", "--request-timeout", "0.5", "--cache-bytes", "0"]
GROWTH = 2**31
LATENCY = 5.0
PIECES = [
    "a",
    '"',
    "'",
    "```",
    "(",
    "[",
    "![[",
    "<?",
    "\u00a0",
    "\u3000",
    "\u2028",
    "C\u00a0.",
    "\U0001f600",
    "a. ",
    "\\",
]


def _filled(piece: str, size: int) -> str:
    return piece * max(1, size // len(json.dumps(piece).encode()[1:-1]))


@st.composite
def bodies(draw) -> tuple[str, bytes]:
    """A path, and a body of nearly the largest size."""
    piece, room = draw(st.sampled_from(PIECES)), LIMIT - draw(st.integers(200, 2000))
    kind = draw(st.sampled_from(["one", "many", "deep", "query", "prune", "ignored", "ellipsis"]))
    if kind == "deep":
        opening = draw(st.sampled_from(["[", '{"a":']))
        return "/v1/rerank", f'{{"query": "q", "documents": {opening * (room // len(opening))}'.encode()
    few = {
        "one": {"documents": [_filled(piece, room)]},
        "many": {"documents": [_filled(piece, room // 900 - 4)] * 900},
        "query": {"query": _filled(piece, room), "documents": ["a"]},
        "prune": {"text": _filled(piece, room), "top_k": 1, "unit": draw(st.sampled_from(["sentence", "paragraph"]))},
        "ignored": {"documents": ["a"], "more": [[]] * (room // 4)},
        "ellipsis": {"text": _filled("a. ", room // 2), "top_k": 5, "ellipsis": _filled(piece, room // 3)},
    }[kind]
    path = "/v1/prune" if "text" in few else draw(st.sampled_from(["/v1/rerank", "/v2/rerank"]))
    return path, json.dumps({"query": "q", **few}).encode()


def connect(server, address: str) -> socket.socket:
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(60)
    connection.bind((address, 0))
    connection.connect(("127.0.0.1", int(server.url.rpartition(":")[2])))
    return connection


def test_hostile_bodies():
    """Two hundred: each gets an answer in JSON, `/health` is answered all the while, and memory is bounded."""
    with (
        child([*COMMAND, *OPTIONS]) as server,
        httpx.Client(base_url=server.url, timeout=60, trust_env=False) as client,
    ):
        assert client.post("/v1/rerank", json={"query": QUERY, "documents": ["a"]}).status_code == 200
        before, grown, waited, statuses = server.memory, [0], [0.0], []

        @settings(
            max_examples=200,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(drawn=bodies())
        def attack(drawn):
            path, body = drawn
            assert len(body) <= LIMIT
            with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=60) as connection:
                head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nconnection: close"
                connection.sendall(f"{head}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
                began = time.monotonic()
                assert client.get("/health").status_code == 200
                waited.append(time.monotonic() - began)
                answer = b""
                while part := connection.recv(2**16):
                    answer += part
            statuses.append(int(answer.split()[1]))
            json.loads(answer.partition(b"\r\n\r\n")[2])
            grown.append(server.memory - before)

        attack()
        found = {status: statuses.count(status) for status in sorted(set(statuses))}
        print(
            f"statuses {found}, /health at most {max(waited):.2f} s, memory at most {max(grown) / 2**20:.0f} MiB more"
        )
        assert len(statuses) >= 150  # hypothesis may run out of different ones
        assert set(statuses) <= {200, 422, 429, 503, 504}
        assert max(waited) < LATENCY
        assert max(grown) < GROWTH


def test_one_client_with_ninety_connections_and_slow_readers():
    """Of a hundred places one address holds ninety and wants more; another is served at once, with its own answers."""
    options = ["--max-connections", "100", "--max-queue", "8", "--body-timeout", "30"]
    with child([*COMMAND, *options]) as server, ExitStack() as stack:
        before = server.memory
        body = json.dumps({"query": QUERY, "documents": ["lamp " * 100] * 40, "return_documents": True}).encode()
        head = f"POST /v1/rerank HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n"
        head += "content-type: application/json"
        for number in range(110):
            connection = stack.enter_context(connect(server, "127.0.0.1"))
            if number % 2:
                connection.sendall(head.encode() + b"\r\n\r\n" + body)  # and never reads
        transport = httpx.HTTPTransport(local_address="127.0.0.2")
        numbers = count()
        with httpx.Client(base_url=server.url, transport=transport, timeout=120) as other:
            for _ in range(5):
                began = time.monotonic()
                assert other.get("/health").status_code == 200
                assert time.monotonic() - began < LATENCY
                documents = [f"lamp {next(numbers)}", "an oven"]
                answer = other.post(
                    "/v1/rerank", json={"query": QUERY, "documents": documents, "return_documents": True}
                )
                assert answer.status_code == 200
                assert {r["document"]["text"] for r in answer.json()["results"]} == set(documents)
        print(f"memory grew {(server.memory - before) / 2**20:.0f} MiB")
        assert server.memory - before < GROWTH
