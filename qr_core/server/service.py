"""Service: checks a job against the limits, waits for its turn and runs it. Knows nothing of HTTP."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from qr_core.checks import checked_query, encodable
from qr_core.errors import InputError
from qr_core.partition import cache_partition
from qr_core.server.jobs import Job
from qr_core.server.logs import described, log, log_event
from qr_core.server.metrics import Metrics
from qr_core.server.queue import Check, ScoringQueue
from qr_core.server.record import Record
from qr_core.server.settings import Settings
from qr_core.types import Document

if TYPE_CHECKING:
    from qr_core.scorer import QRScorer

T = TypeVar("T")

TOKEN_BYTES = 16
"""No text of any language has longer tokens on average. What has is one long word without end, or nothing but blanks:
a tokenizer may take it for a single token, but it is as much work as its bytes."""
SLICE = 2**15
"""Characters that are tokenised at a time, so that a limit ends the work soon after it is passed."""


class Service:
    """One scorer behind one queue.

    Parameters
    ----------
    scorer : QRScorer
    settings : Settings
    """

    def __init__(self, scorer: QRScorer, settings: Settings) -> None:
        self.scorer = scorer
        self.settings = settings
        self.queue = ScoringQueue(settings.max_queue)
        self.state: Literal["loading", "loaded", "failed"] = "loading"
        self.draining = False
        # Large bodies are parsed one at a time: as values they take many times their bytes.
        self.parser = ThreadPoolExecutor(1, thread_name_prefix="qrhead-parse")
        self.in_flight = 0
        self.metrics = Metrics(lambda: self.queue.waiting, lambda: self.in_flight, lambda: float(self.ready))

    @property
    def ready(self) -> bool:
        """Whether it accepts requests and answers them without loading anything first."""
        return self.state == "loaded" and not self.draining

    @property
    def model_name(self) -> str:
        """The model's name; of a folder only the last part, since its path is not for clients."""
        name = self.scorer.model_name
        return Path(name).resolve().name if Path(name).exists() else name

    def load(self, *_: Any) -> None:
        """Load the weights and score once.

        Raises
        ------
        ModelLoadError, InputError, NonFiniteError
            As for `QRScorer.rank`.
        """
        self.scorer.rank("ready?", ["ready"])

    async def warm_up(self) -> None:
        """`load` on the scoring thread; a failure is logged, and leaves the service not ready until a request works."""
        started = time.monotonic()
        try:
            await self.queue.run(self.load, 24 * 3600)
        except Exception as error:  # the server goes on and says that it is not ready
            self.state = "failed"
            log.error("not loaded", extra={"fields": described(error) | {"message": str(error)}})  # no client's text
        else:
            self.state = "loaded"
            log_event("loaded", model=self.model_name, seconds=round(time.monotonic() - started, 2))

    async def run(self, record: Record, job: Job[T]) -> T:
        """Do a job when its turn has come, and note in `record` what it took.

        Raises
        ------
        InputError, Refusal, QRHeadError
            When a limit is passed (see `Settings`), and as the scorer does.
        """
        documents = job.documents
        record.documents = len(documents)
        check_number(len(documents), self.settings.max_documents)
        checked_query(job.query)
        self._check_bytes(job.query, documents)

        def turn(check: Check) -> T:
            with cache_partition(record.client):
                record.tokens = self._count(job.query, documents, check)
                return job.run(self.scorer, self.settings.order, check)

        left = self.settings.request_timeout - (time.monotonic() - record.arrived)
        done = await self.queue.run(turn, left, record.holder)
        record.queued, record.scored = done.queued, done.scored
        self.state = "loaded"
        return done.value

    def _check_bytes(self, query: str, documents: Sequence[Document]) -> None:
        """Refuse what has too many bytes for the tokens allowed, before anything is done with it."""
        size = sum(len(encodable(text).encode()) for text in _texts(query, documents))
        if size > TOKEN_BYTES * self.settings.max_tokens:
            raise InputError(
                f"query and documents have {size} bytes of text: at most {TOKEN_BYTES * self.settings.max_tokens} are "
                f"allowed, {TOKEN_BYTES} for each of {self.settings.max_tokens} tokens"
            )

    def _count(self, query: str, documents: Sequence[Document], check: Check) -> int:
        """Tokens of a request; stops counting once they are too many."""
        tokens = 0
        for text in _texts(query, documents):
            for piece in _slices(text):
                check()
                tokens += self.scorer.count_tokens(piece)
                if tokens > self.settings.max_tokens:
                    raise InputError(
                        f"query and documents have more than the {self.settings.max_tokens} tokens allowed"
                    )
        return tokens


def check_number(documents: int, most: int) -> None:
    """Refuse more documents than are allowed.

    Raises
    ------
    InputError
    """
    if documents > most:
        raise InputError(f"there are {documents} documents: at most {most} are allowed")


def _texts(query: str, documents: Sequence[Document]) -> Iterator[str]:
    """All that a request has the scorer encode."""
    yield query
    for document in documents:
        yield document.text
        if document.title:
            yield document.title


def _slices(text: str) -> Iterator[str]:
    """`text` in pieces; each ends before a blank where there is one, so that words are counted as they are."""
    start = 0
    while start < len(text):
        end = start + SLICE
        if end < len(text):
            end = max(text.rfind(blank, start + SLICE // 2, end) for blank in (" ", "\n"))
            end = end if end > 0 else start + SLICE
        yield text[start:end]
        start = end
