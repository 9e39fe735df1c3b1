"""Load on a running server: `make serve-heavy`. Figures are printed; QRHEAD_HEAVY_SECONDS shortens the longest test."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import statistics
import time

import httpx
import pytest
from hypothesis import HealthCheck, given, settings

from qr_core import QRScorer
from qr_core.server import ApiKeys
from tests.helpers import QUERY
from tests.server.child import COMMAND, TINY, Child, child
from tests.server.conftest import serving, until

schemathesis = pytest.importorskip("schemathesis")

pytestmark = [pytest.mark.heavy, pytest.mark.filterwarnings("default"), pytest.mark.timeout(1800)]

SECONDS = float(os.environ.get("QRHEAD_HEAVY_SECONDS", "60"))
EXAMPLES = max(10, int(2 * SECONDS))
KINDS = 12
"""Number of different contents; each request marks the documents of its own with its number."""
KEY = "k-77c0e5d1"


@pytest.fixture(scope="module")
def guarded(tiny):
    with serving(tiny, keys=ApiKeys([("tests", KEY)])) as server:
        yield server


@pytest.mark.parametrize("mode", ["POSITIVE", "NEGATIVE"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("POST", path) for path in ("/v1/rerank", "/v2/rerank", "/rerank", "/v1/prune")),
        *(("GET", path) for path in ("/health", "/ready", "/metrics")),
    ],
)
def test_the_api_is_as_its_schema_says(guarded, method, path, mode):
    """schemathesis: bodies that fit the schema and bodies that do not, answered as the schema says."""
    operation = schemathesis.openapi.from_dict(guarded.app.openapi())[path][method]
    if mode == "NEGATIVE" and method == "GET":
        pytest.skip("takes nothing that could be wrong")
    # What fits the schema may still be refused: a blank query, both text and documents.
    excluded = [schemathesis.specs.openapi.checks.positive_data_acceptance]
    strategy = operation.as_strategy(generation_mode=getattr(schemathesis.GenerationMode, mode))

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=strategy)
    def check(case):
        case.call_and_validate(
            base_url=guarded.url, headers={"Authorization": f"Bearer {KEY}"}, excluded_checks=excluded, timeout=30
        )

    check()


class Content:
    """Requests whose answers can be told apart, and told right from wrong."""

    def __init__(self) -> None:
        scorer = QRScorer.from_pretrained(TINY[1], TINY[3], template="plain", device="cpu")
        draw = random.Random(0)
        words = ["lamp", "oven", "bridge", "harbour", "bread", "arch", "keeper", "flour", "stone", "night"]
        self.texts = [[" ".join(draw.choices(words, k=40)) for _ in range(4)] for _ in range(KINDS)]
        self.expected = [[(h.index, h.relevance) for h in scorer.rank(QUERY, texts)] for texts in self.texts]

    def body(self, number: int) -> dict:
        documents = [{"text": t, "id": f"{number}-{n}"} for n, t in enumerate(self.texts[number % KINDS])]
        return {"query": QUERY, "documents": documents, "return_documents": True}

    def check(self, number: int, answer: httpx.Response) -> None:
        results = answer.json()["results"]
        assert [(r["index"], r["relevance_score"]) for r in results] == self.expected[number % KINDS]
        for result in results:
            assert result["document"]["id"] == f"{number}-{result['index']}"
            assert result["document"]["text"] == self.texts[number % KINDS][result["index"]]


@pytest.fixture(scope="module")
def content() -> Content:
    return Content()


async def ask(client: httpx.AsyncClient, content: Content, number: int) -> tuple[int, float]:
    """Status, and seconds until the answer."""
    began = time.monotonic()
    answer = await client.post("/v1/rerank", json=content.body(number))
    took = time.monotonic() - began
    if answer.status_code == 200:
        content.check(number, answer)
    else:
        assert answer.status_code in (429, 503, 504), answer.text
        assert answer.status_code == 504 or int(answer.headers["retry-after"]) >= 1
    return answer.status_code, took


def client_of(server: Child) -> httpx.AsyncClient:
    free = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    return httpx.AsyncClient(base_url=server.url, timeout=600, limits=free, trust_env=False)


def metrics_of(server: Child) -> str:
    """However long it takes: other jobs of the machine are not the server's doing."""
    return httpx.get(f"{server.url}/metrics", timeout=60, trust_env=False).text


def told(name: str, answers: list[tuple[int, float]]) -> None:
    """Print how many answers of each status there were, and how long they took."""
    for status in sorted({status for status, _ in answers}):
        took = sorted(seconds for found, seconds in answers if found == status)
        at = [took[min(len(took) - 1, int(share * len(took)))] for share in (0.5, 0.95, 0.99)]
        shown = " ".join(f"p{p}={1000 * seconds:.0f}ms" for p, seconds in zip((50, 95, 99), at, strict=True))
        print(f"{name}: status {status}: {len(took)} answers, {shown}")


async def test_twice_what_it_can_do(content):
    """No answer is lost or crossed; what is too much is refused at once; memory stays."""
    with child([*COMMAND, "--max-queue", "16"]) as server:
        async with client_of(server) as client:
            alone = [await ask(client, content, n) for n in range(30)]
            capacity = 1 / statistics.median(seconds for _, seconds in alone)
            before, queued = server.memory, 0
            asked = []
            began = time.monotonic()
            while (passed := time.monotonic() - began) < SECONDS:
                asked.append(asyncio.create_task(ask(client, content, 1000 + len(asked))))
                # The machine may have become faster since: twice what it can do is twice what it has been doing.
                done = sum(task.done() and task.result()[0] == 200 for task in asked)
                rate = 2 * max(capacity, done / max(1.0, passed))
                queued = max(queued, len(asked) - sum(task.done() for task in asked))
                await asyncio.sleep(random.expovariate(rate))
            answers = await asyncio.gather(*asked)
            metrics = (await client.get("/metrics")).text
            grown = server.memory - before
            assert (await ask(client, content, 7))[0] == 200
        told("alone", alone)
        told(f"{len(asked) / SECONDS:.0f}/s for {SECONDS:.0f} s", answers)
        print(
            f"answered 200: {sum(s == 200 for s, _ in answers) / SECONDS:.0f}/s, at most {queued} at a time, "
            f"memory grew {grown / 2**20:.0f} MiB"
        )
        assert len(answers) == len(asked)
        assert sum(status == 429 for status, _ in answers) > 0.1 * len(answers)  # refused, where it would have grown
        counted = float(metrics.split('qrhead_requests_total{endpoint="/v1/rerank",status="200"} ')[1].split("\n")[0])
        assert counted == 30 + sum(status == 200 for status, _ in answers)
        assert grown < 200 * 2**20


async def test_a_thousand_at_once(content):
    with child([*COMMAND, "--request-timeout", "300"]) as server:
        async with client_of(server) as client:
            await ask(client, content, 0)
            before = server.memory
            answers = await asyncio.gather(*(ask(client, content, n) for n in range(1000)))
            grown = server.memory - before
            assert (await ask(client, content, 7))[0] == 200
        told("a thousand at once", answers)
        print(f"memory grew {grown / 2**20:.0f} MiB")
        assert sum(status == 200 for status, _ in answers) >= 60  # at least all that may wait
        assert grown < 300 * 2**20


async def test_a_hundred_thousand_documents(content):
    """Refused by default; with limits that allow them given up in time; /health is answered all the while."""
    body = {"query": QUERY, "documents": [f"the keeper of lamp {n} " + "lit an oven " * 3 for n in range(100_000)]}
    wide = ["--max-documents", "100000", "--max-tokens", "100000000", "--request-timeout", "20"]
    body_bytes = ["--max-body-bytes", str(16 * 2**20)]
    for options, status in (([], 422), (wide, 504)):
        with child([*COMMAND, *body_bytes, *options]) as server:
            async with client_of(server) as client:
                await ask(client, content, 0)
                before = server.memory
                large = asyncio.create_task(client.post("/v1/rerank", json=body))
                waits = []
                while not large.done():
                    began = time.monotonic()
                    assert (await client.get("/health")).status_code == 200
                    waits.append(time.monotonic() - began)
                    await asyncio.sleep(0.02)
                assert large.result().status_code == status
                grown = server.memory - before
                until(lambda: "qrhead_queue_waiting 0.0" in metrics_of(server), 300)
                answer = await client.post("/v1/rerank", json=content.body(1))
                print(
                    f"100,000 documents: {status}, memory grew {grown / 2**20:.0f} MiB, "
                    f"longest wait of another {1000 * max(waits):.0f} ms, next {answer.status_code}"
                )
                assert answer.status_code in (200, 503)  # the thread leaves at its next check
                assert grown < 1500 * 2**20


def test_slow_clients_and_dropped_connections(content):
    """Two hundred bodies that trickle in and three hundred that break off: others are served, and all are ended."""
    head = (
        b"POST /v1/rerank HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 5000\r\n\r\n"
    )
    with child([*COMMAND, "--body-timeout", "30"]) as server:
        port = int(server.url.rpartition(":")[2])
        before = server.memory
        trickling = [socket.create_connection(("127.0.0.1", port)) for _ in range(200)]
        for connection in trickling:
            connection.sendall(head)
        for number in range(300):
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.sendall(head + b"{" * (number % 50))
        served, began = 0, time.monotonic()
        while served < 3 or time.monotonic() - began < 5:
            for connection in trickling:
                connection.send(b" ")
            content.check(served, httpx.post(f"{server.url}/v1/rerank", json=content.body(served), timeout=120))
            served += 1
        for connection in trickling:
            connection.settimeout(120)
            assert connection.recv(65536).startswith(b"HTTP/1.1 408")
            connection.close()
        until(lambda: "qrhead_requests_in_flight 1.0" in metrics_of(server), 120)
        grown = server.memory - before
        print(f"slow clients: {served} others served meanwhile, memory grew {grown / 2**20:.0f} MiB")
        assert grown < 200 * 2**20
