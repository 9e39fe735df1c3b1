"""A server on this machine that speaks the OpenAI chat protocol and answers from a script."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def completion(text: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    return {"id": "1", "object": "chat.completion", "created": 1, "model": "stub", "choices": [choice]}


class StubServer(ThreadingHTTPServer):
    """Answers each request with the next (status, body, seconds) of `script`; the last one repeats.

    A body may be a function from the user's message to a body.
    """

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        self.script: list[tuple[int, Any, float]] = [(200, completion(" Blue. "), 0)]
        self.seen: list[dict[str, Any]] = []
        self.models = ["stub"]
        self.headers: dict[str, str] = {}  # further ones of each reply
        self.sent = 0

    @property
    def messages(self) -> list[str]:
        """What users said in the requests seen so far."""
        return [request["messages"][0]["content"] for request in self.seen]

    def says(self, *texts: str) -> None:
        """Reply with these texts, one after the other."""
        self.script = [(200, completion(text), 0) for text in texts]


class _Handler(BaseHTTPRequestHandler):
    server: StubServer

    def do_GET(self) -> None:
        self.reply(200, {"object": "list", "data": [{"id": name, "object": "model"} for name in self.server.models]})

    def do_POST(self) -> None:
        self.server.seen.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        script = self.server.script
        status, answer, seconds = script.pop(0) if len(script) > 1 else script[0]
        time.sleep(seconds)
        self.reply(status, answer(self.server.messages[-1]) if callable(answer) else answer)

    def reply(self, status: int, answer: Any) -> None:
        raw = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.send_header("Retry-After-Ms", "1")  # tests need not wait long between tries
            for name, value in self.server.headers.items():
                self.send_header(name, value)
            self.end_headers()
            for start in range(0, len(raw), 65536):
                self.wfile.write(raw[start : start + 65536])
                self.server.sent += len(raw[start : start + 65536])
        except (BrokenPipeError, ConnectionResetError):
            pass

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serving(port: int = 0) -> Iterator[StubServer]:
    """A server on this port, or on a free one."""
    server = StubServer(port)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)  # seconds until it sees its end
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
