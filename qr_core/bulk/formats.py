"""Bulk formats: rows of a part as the bytes of a Parquet file, of JSON lines, or of a TREC run.

A row is `job` (position in the input), `line`, `id`, `hits` (best first), `calibrated`, `windows`, `rounds`, and
`error`, which is null where `hits` is not. Knows nothing of jobs or of how they are ranked.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from qr_core.checks import encodable
from qr_core.errors import InputError, missing_extra
from qr_core.files.trec import word

Row = Mapping[str, Any]
BulkFormat = Literal["parquet", "jsonl", "trec"]
FORMATS: tuple[str, ...] = get_args(BulkFormat)
TAG = "qrhead"


def parquet() -> Any:
    """pyarrow.parquet.

    Raises
    ------
    InputError
        When it is not installed.
    """
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise InputError(missing_extra(error, "distributed")) from error
    return pyarrow.parquet


def rendered(rows: Sequence[Row], name: BulkFormat) -> tuple[bytes, bytes]:
    """The bytes of a part's file, and of the file of errors beside it, which only a TREC run needs."""
    if name == "trec":
        failed = [{key: row[key] for key in ("job", "line", "id", "error")} for row in rows if row["error"] is not None]
        return "".join(map(_trec, rows)).encode(), _lines(failed)
    return (_lines(rows) if name == "jsonl" else _parquet(rows)), b""


def trec_id(key: str | int | None, position: int) -> str:
    """What stands for a job or a document in a TREC run: its id, or `#` and its position."""
    return word(f"#{position}" if key is None else str(key))


def _lines(rows: Sequence[Row]) -> bytes:
    """JSON lines; everything but ASCII is escaped."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _trec(row: Row) -> str:
    """The lines of one job. Scores of different rounds do not compare, places do."""
    hits, query = row["hits"] or [], trec_id(row["id"], row["job"])
    lines = []
    for place, hit in enumerate(hits, start=1):
        score = hit["score"] if row["rounds"] == 1 else float(len(hits) - place + 1)
        lines.append(f"{query} Q0 {trec_id(hit['id'], hit['index'])} {place} {score!r} {TAG}\n")
    return "".join(lines)


def _parquet(rows: Sequence[Row]) -> bytes:
    """Ids as strings, with lone surrogates, which Parquet cannot hold, as U+FFFD."""
    pq = parquet()
    import pyarrow as pa

    hit = pa.struct(
        [
            ("index", pa.int64()),
            ("id", pa.string()),
            ("score", pa.float64()),
            ("relevance", pa.float64()),
            ("round", pa.int64()),
            ("window", pa.int64()),
        ]
    )
    schema = pa.schema(
        [
            ("job", pa.int64()),
            ("line", pa.int64()),
            ("id", pa.string()),
            ("hits", pa.list_(hit)),
            ("calibrated", pa.bool_()),
            ("windows", pa.int64()),
            ("rounds", pa.int64()),
            ("error", pa.string()),
        ]
    )
    shaped = [
        {
            **row,
            "id": _text(row["id"]),
            "hits": None if row["hits"] is None else [{**h, "id": _text(h["id"])} for h in row["hits"]],
            "error": _text(row["error"]),
        }
        for row in rows
    ]
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(shaped, schema=schema), sink)
    return sink.getvalue()


def _text(value: str | int | None) -> str | None:
    return None if value is None else encodable(str(value))
