"""Logs: one JSON object a line, without text of queries or documents and without keys.

Messages of exceptions may quote what a client sent, so only their type and where they came from are written.
"""

from __future__ import annotations

import json
import logging
import traceback
from datetime import datetime, timezone
from typing import Any, TextIO

from qr_core.server.record import Record

log = logging.getLogger("qr_core.server")


class JsonLines(logging.Formatter):
    """Formats any log record as one line of JSON, in ASCII."""

    def format(self, record: logging.LogRecord) -> str:
        """Time, level and logger; then the event's fields, or the message."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        fields = getattr(record, "fields", None)
        line |= {"event": record.getMessage()} | (fields if isinstance(fields, dict) else {})
        if record.exc_info and record.exc_info[1] is not None:
            line |= described(record.exc_info[1])
        return json.dumps(line)


def described(error: BaseException) -> dict[str, Any]:
    """An error's type and the code it passed through, innermost last; not its message."""
    frames = traceback.extract_tb(error.__traceback__)
    cause = error.__cause__
    return {
        "error": f"{type(error).__module__}.{type(error).__qualname__}",
        **({} if cause is None else {"cause": f"{type(cause).__module__}.{type(cause).__qualname__}"}),
        "frames": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
    }


def setup(stream: TextIO, level: int = logging.INFO) -> None:
    """Send everything that is logged in this process to `stream`, as JSON lines."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)


def log_event(event: str, **fields: Any) -> None:
    """Log what happened to the server."""
    log.info(event, extra={"fields": fields})


def log_request(record: Record, seconds: float) -> None:
    """Log one answered request."""
    fields = {
        "id": record.id,
        "method": record.method,
        "endpoint": record.endpoint,
        "client": record.client,
        "status": record.status,
        "ms": round(1000 * seconds, 1),
        "queued_ms": None if record.queued is None else round(1000 * record.queued, 1),
        "scored_ms": None if record.scored is None else round(1000 * record.scored, 1),
        "bytes": record.body_bytes,
        "documents": record.documents,
        "tokens": record.tokens,
    }
    log.info("request", extra={"fields": fields})


def log_failure(record: Record, error: BaseException) -> None:
    """Log an unexpected error."""
    log.error("failure", extra={"fields": {"id": record.id, "endpoint": record.endpoint} | described(error)})
