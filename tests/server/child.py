"""A server in a process of its own, for tests that send signals; with arguments, one whose turns take their time.

python -m tests.server.child SECONDS CHECKS GRACE
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tests.helpers import GOLDEN

TINY = ["--model", str(GOLDEN / "tiny-llama"), "--heads", "2-1,3-4", "--template", "plain", "--device", "cpu"]
COMMAND = [sys.executable, "-m", "qr_core.cli.main", "serve", "--port", "0", *TINY]


class Child:
    """A running server and its log."""

    def __init__(self, command: Sequence[str], environment: dict[str, str] | None = None) -> None:
        settings = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **(environment or {})}
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=settings)
        self.log: list[dict] = []
        self._lines: queue.Queue[dict] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def ready(self) -> None:
        port = self.wait_for("listening")["port"]
        self.wait_for("loaded")
        self.url = f"http://127.0.0.1:{port}"

    def _read(self) -> None:
        with self.process.stderr as lines:
            for line in lines:
                self._lines.put(json.loads(line))

    def wait_for(self, event: str, seconds: float = 240) -> dict:
        end = time.monotonic() + seconds
        while True:
            self.log.append(self._lines.get(timeout=max(0.01, end - time.monotonic())))
            if self.log[-1]["event"] == event:
                return self.log[-1]

    def rest(self) -> list[dict]:
        """The whole log of a process that has ended."""
        self._reader.join()
        while not self._lines.empty():
            self.log.append(self._lines.get())
        return self.log

    @property
    def memory(self) -> int:
        """Bytes of memory that it holds."""
        with open(f"/proc/{self.process.pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def child(command: Sequence[str], environment: dict[str, str] | None = None) -> Iterator[Child]:
    running = Child(command, environment)
    try:
        running.ready()
        yield running
    finally:
        running.process.kill()
        running.process.wait()
        running.rest()


def slow(seconds: float, checks: bool, grace: float) -> list[str]:
    """The command of a server whose turns take `seconds`, and can be left if they check."""
    return [sys.executable, "-m", "tests.server.child", str(seconds), str(int(checks)), str(grace)]


def main() -> None:
    from qr_core import QRScorer
    from qr_core.server import Settings, create_app
    from qr_core.server.logs import setup
    from qr_core.server.run import serve

    seconds, checks, grace = float(sys.argv[1]), bool(int(sys.argv[2])), float(sys.argv[3])
    scorer = QRScorer.from_pretrained(TINY[1], TINY[3], template="plain", device="cpu")
    rank = scorer.rank

    def late(query, documents, progress=None, **options):
        end = time.monotonic() + (seconds if progress else 0)
        while time.monotonic() < end:
            time.sleep(0.02)
            if checks:
                progress(0, 0)
        return rank(query, documents, progress=progress, **options)

    scorer.rank = late
    settings = Settings(grace=grace)
    setup(sys.stderr)
    serve(create_app(scorer, settings), settings, "127.0.0.1", 0)


if __name__ == "__main__":
    main()
