"""Fixtures: applications around a tiny model, called in this process or served on a real socket."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest

from qr_core import QRScorer
from qr_core.server import Settings, create_app
from qr_core.server.run import DrainingServer, bind, configured
from tests.helpers import golden_scorer


class Live:
    """A server on a port of this machine, in a thread of this process."""

    def __init__(self, scorer: QRScorer, settings: Settings) -> None:
        self.scorer = scorer
        self.app = create_app(scorer, settings)
        self.service = self.app.state.service
        self.server = DrainingServer(configured(self.app, settings), self.service)
        self.bound = bind("127.0.0.1", 0)
        self.thread = threading.Thread(target=lambda: asyncio.run(self.server.serve([self.bound])))

    def start(self) -> None:
        self.thread.start()
        until(lambda: self.server.started and self.service.ready)
        self.port = self.bound.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        # No connection is used twice: the server may be about to close it.
        one_each = httpx.Limits(max_keepalive_connections=0)
        self.client = httpx.Client(base_url=self.url, timeout=60, limits=one_each, trust_env=False)

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join()
        self.client.close()

    def post(self, path: str, body=None, **options) -> httpx.Response:
        """One request on a connection of its own."""
        return self.client.post(path, json=body, **options)


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came about"
        time.sleep(0.005)


class Held:
    """Makes every turn of a service wait until it is let go, and tells how many have begun."""

    def __init__(self, service, monkeypatch) -> None:
        self.go = threading.Event()
        self.begun = 0
        self.checks = True
        original = service._count

        def count(query, documents, check):
            self.begun += 1
            while not self.go.wait(0.01):
                if self.checks:
                    check()
            return original(query, documents, check)

        monkeypatch.setattr(service, "_count", count)


@pytest.fixture(scope="session")
def tiny(golden) -> QRScorer:
    """A model of random weights with heads that score every document differently."""
    return golden_scorer(golden["llama"], golden["llama"]["cases"][0])


@contextmanager
def serving(scorer: QRScorer, **settings) -> Iterator[Live]:
    live = Live(scorer, Settings(**settings))
    live.start()
    try:
        yield live
    finally:
        live.stop()


@pytest.fixture(scope="session")
def live(tiny) -> Iterator[Live]:
    """A server with default limits."""
    with serving(tiny) as running:
        yield running


@pytest.fixture
def serve(tiny):
    """Start servers with other settings; they stop after the test."""
    running = []

    def start(scorer: QRScorer = tiny, **settings) -> Live:
        running.append(Live(scorer, Settings(**settings)))
        running[-1].start()
        return running[-1]

    yield start
    for one in running:
        one.stop()


@pytest.fixture
def hold(monkeypatch):
    """Hold the turns of a server."""
    made = []

    def holding(live: Live) -> Held:
        made.append(Held(live.service, monkeypatch))
        return made[-1]

    yield holding
    for one in made:
        one.go.set()


@pytest.fixture
def log_lines(caplog):
    """What the server logged so far, as its JSON lines."""
    from qr_core.server.logs import JsonLines

    caplog.set_level("INFO")

    def lines(requests: int = 0, **wanted: object) -> list[dict]:
        """All that have the `wanted` values, once at least `requests` of them are of requests.

        A line follows its answer, so those of an earlier test may still come in.
        """

        def found() -> list[dict]:
            written = [json.loads(JsonLines().format(record)) for record in list(caplog.records)]
            return [line for line in written if wanted.items() <= line.items()]

        until(lambda: sum(line["event"] == "request" for line in found()) >= requests)
        return found()

    return lines
