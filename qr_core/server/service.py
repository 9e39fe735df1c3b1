"""Service: checks a job against the limits, waits for its turn and runs it. Knows nothing of HTTP."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from qr_core.checks import checked_query
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
        if len(documents) > self.settings.max_documents:
            raise InputError(f"there are {len(documents)} documents: at most {self.settings.max_documents} are allowed")
        checked_query(job.query)

        def turn(check: Check) -> T:
            with cache_partition(record.client):
                record.tokens = self._count(job.query, documents, check)
                return job.run(self.scorer, self.settings.order, check)

        left = self.settings.request_timeout - (time.monotonic() - record.arrived)
        done = await self.queue.run(turn, left, record.holder)
        record.queued, record.scored = done.queued, done.scored
        self.state = "loaded"
        return done.value

    def _count(self, query: str, documents: Sequence[Document], check: Check) -> int:
        """Tokens of a request; stops counting once they are too many."""
        tokens = self.scorer.count_tokens(query)
        for document in documents:
            check()
            tokens += self.scorer.count_tokens(document.text)
            if document.title:
                tokens += self.scorer.count_tokens(document.title)
            if tokens > self.settings.max_tokens:
                raise InputError(f"query and documents have more than the {self.settings.max_tokens} tokens allowed")
        return tokens
