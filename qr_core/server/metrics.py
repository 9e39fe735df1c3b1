"""Metrics: counts and durations in Prometheus' text format. Labels come from closed sets, never from client text."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from qr_core.server.record import Record

CONTENT_TYPE = CONTENT_TYPE_LATEST
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """The metrics of one application, in a registry of its own.

    Parameters
    ----------
    waiting, in_flight, ready : callable
        Asked when the metrics are read.
    """

    def __init__(
        self, waiting: Callable[[], float], in_flight: Callable[[], float], ready: Callable[[], float]
    ) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)

        def gauge(name: str, about: str, read: Callable[[], float]) -> None:
            Gauge(f"qrhead_{name}", about, registry=self.registry).set_function(read)

        def histogram(name: str, about: str) -> Histogram:
            return Histogram(f"qrhead_{name}", about, ["endpoint"], registry=self.registry, buckets=SECONDS)

        def counter(name: str, about: str, *labels: str) -> Counter:
            return Counter(f"qrhead_{name}", about, labels, registry=self.registry)

        gauge("queue_waiting", "Requests that wait for their turn.", waiting)
        gauge("requests_in_flight", "Requests that are not answered yet.", in_flight)
        gauge("ready", "1 once the model is loaded, 0 while the server stops.", ready)
        self.requests = counter("requests", "Requests by status; 499: the client disconnected.", "endpoint", "status")
        self.documents = counter("documents", "Documents of scored requests.", "endpoint")
        self.tokens = counter("tokens", "Tokens of scored requests.", "endpoint")
        self.seconds = histogram("request_seconds", "From a request's arrival to the end of its answer.")
        self.queued = histogram("queue_seconds", "Waiting for a turn.")
        self.scored = histogram("scoring_seconds", "Counting tokens and scoring.")

    def observe(self, record: Record, seconds: float) -> None:
        """Count one request."""
        endpoint = record.endpoint
        self.requests.labels(endpoint, str(record.status)).inc()
        self.seconds.labels(endpoint).observe(seconds)
        if record.queued is not None and record.scored is not None:
            self.documents.labels(endpoint).inc(record.documents)
            self.tokens.labels(endpoint).inc(record.tokens)
            self.queued.labels(endpoint).observe(record.queued)
            self.scored.labels(endpoint).observe(record.scored)

    def render(self) -> bytes:
        """All of them, as text."""
        return generate_latest(self.registry)
