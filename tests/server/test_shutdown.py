"""Signals: what was accepted is answered, what comes after is refused, and the process ends within the grace period."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.helpers import QUERY
from tests.server.child import COMMAND, child, slow
from tests.server.conftest import until

BODY = {"query": QUERY, "documents": ["a lamp", "an oven"]}


class Load:
    """Clients that ask one after the other until they are refused, and note what they got."""

    def __init__(self, url: str, clients: int) -> None:
        self.url = url
        self.done: list[tuple[float, float, int | str]] = []
        self.threads = [threading.Thread(target=self.ask, args=(n,)) for n in range(clients)]
        for thread in self.threads:
            thread.start()

    def ask(self, number: int) -> None:
        text = f"lamp {number} " * 80
        with httpx.Client(timeout=150) as client:
            status: int | str = 200
            while status == 200:
                began = time.monotonic()
                try:
                    answer = client.post(
                        f"{self.url}/v1/rerank",
                        json={"query": QUERY, "documents": [text, "b"], "return_documents": True},
                    )
                    status = answer.status_code
                    if status == 200:
                        assert text in {r["document"]["text"] for r in answer.json()["results"]}
                except httpx.TransportError as error:
                    status = type(error).__name__
                self.done.append((began, time.monotonic(), status))


def test_sigterm_under_load():
    with child([*COMMAND, "--grace", "120"]) as server:
        load = Load(server.url, 12)
        until(lambda: len(load.done) > 24)
        told = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        code = server.process.wait(120)
        took = time.monotonic() - told
        for thread in load.threads:
            thread.join()
        log = server.rest()
    assert code == 0
    assert took < 120
    refused = {503, "ConnectError", "ReadError", "RemoteProtocolError"}
    assert {status for _, ended, status in load.done if ended < told} == {200}
    assert {status for *_, status in load.done} <= {200} | refused
    assert log[-1]["event"] == "stopped"
    assert log[-1]["unfinished"] == 0
    accepted = [line["status"] for line in log if line["event"] == "request" and line["documents"]]
    assert set(accepted) == {200}
    assert len(accepted) == sum(status == 200 for *_, status in load.done) > 24
    assert QUERY not in json.dumps(log)
    assert "uvicorn.access" not in {line["logger"] for line in log}  # it would hold query strings
    assert not [line for line in log if line["level"] not in ("info", "warning")]


def test_while_it_stops_it_refuses_and_says_so(serve, hold):
    server = serve()
    held = hold(server)
    with ThreadPoolExecutor(2) as pool:
        accepted = [pool.submit(server.post, "/v1/rerank", BODY) for _ in range(2)]
        until(lambda: held.begun == 1 and server.service.queue.waiting == 1)
        server.server.handle_exit(signal.SIGTERM, None)
        refused = server.post("/v1/rerank", BODY)
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) >= 1
        assert "stopping" in refused.json()["error"]
        assert server.client.get("/health").status_code == 200
        assert "qrhead_ready 0.0" in server.client.get("/metrics").text
        ready = server.client.get("/ready")
        assert (ready.status_code, ready.json()["status"]) == (503, "stopping")
        held.go.set()
        assert [one.result().status_code for one in accepted] == [200, 200]
    server.thread.join(5)
    assert not server.thread.is_alive()


@pytest.mark.parametrize("checks", [True, False])
def test_at_the_end_of_the_grace_period_those_who_wait_are_told(serve, hold, checks):
    server = serve(grace=2.3)
    held = hold(server)
    held.checks = checks
    with ThreadPoolExecutor(2) as pool:
        accepted = [pool.submit(server.post, "/v1/rerank", BODY) for _ in range(2)]
        until(lambda: held.begun == 1 and server.service.queue.waiting == 1)
        told = time.monotonic()
        server.server.handle_exit(signal.SIGTERM, None)
        for one in accepted:
            assert one.result().status_code == 503
            assert "its time to finish is over" in one.result().json()["error"]
        server.thread.join(5)
        assert time.monotonic() - told < 2.3
    assert server.service.queue.busy != checks


def asked(server, path: str) -> httpx.Response:
    """However long it takes: other jobs of the machine are not the server's doing."""
    return httpx.get(f"{server.url}{path}", timeout=60, trust_env=False)


@pytest.mark.heavy
@pytest.mark.parametrize("checks", [True, False])
def test_the_process_ends_with_the_grace_period(checks):
    """Not even a turn that cannot be left, and would take two minutes, keeps it."""
    with child(slow(120, checks, 6)) as server, ThreadPoolExecutor(1) as pool:
        accepted = pool.submit(httpx.post, f"{server.url}/v1/rerank", json=BODY, timeout=150)
        until(lambda: "qrhead_requests_in_flight 2.0" in asked(server, "/metrics").text, 60)
        told = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        code = server.process.wait(60)
        print(f"grace of 6 s: ended after {time.monotonic() - told:.1f} s")
        assert accepted.result().status_code == 503
        assert code == (0 if checks else 1)


@pytest.mark.heavy
def test_a_second_signal_ends_at_once():
    """Long before the grace period or the turn would end."""
    with child(slow(120, False, 110)) as server, ThreadPoolExecutor(1) as pool:
        accepted = pool.submit(httpx.post, f"{server.url}/v1/rerank", json=BODY, timeout=150)
        until(lambda: "qrhead_requests_in_flight 2.0" in asked(server, "/metrics").text, 60)
        server.process.send_signal(signal.SIGINT)
        until(lambda: asked(server, "/ready").json()["status"] == "stopping", 60)  # two at once would count as one
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(60) == 1
        assert accepted.exception() is not None or accepted.result().status_code >= 500


def test_without_the_extra_one_line_names_it(tmp_path):
    code = (
        "import sys\n"
        "sys.modules['fastapi'] = None\n"
        "sys.argv = ['qrhead', 'serve']\n"
        "from qr_core.cli.main import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert "pip install 'qrhead[serve]'" in done.stderr
    assert done.stderr.count("\n") == 1
