"""Bulk formats: rows of a part as the bytes of a Parquet file, of JSON lines, or of a TREC run.

A row is `job` (position in the input), `line`, `id`, `hits` (best first), `calibrated`, `segments`, `rounds`, and
`error`, which is null where `hits` is not. Until 1.0, `window` and `windows` stand beside `segment` and `segments`.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from qr_core.checks import encodable
from qr_core.errors import InputError, missing_extra
from qr_core.files.trec import word
from qr_core.registry import Registry

Row = Mapping[str, Any]
TAG = "qrhead"


@dataclass(frozen=True)
class Format:
    """How the rows of a part become a file.

    Attributes
    ----------
    rendered : callable
        From rows to the bytes of the file, and of a file of errors beside it where the format has no place for them.
    by_id : bool
        Jobs and documents are told apart by their ids alone, which must then differ.
    ready : callable, optional
        Raises InputError when a package that the format needs is missing.
    """

    rendered: Callable[[Sequence[Row]], tuple[bytes, bytes]]
    by_id: bool = False
    ready: Callable[[], object] | None = None


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


def trec_id(key: str | int | None, position: int) -> str:
    """What stands for a job or a document in a TREC run: its id, or `#` and its position."""
    return word(f"#{position}" if key is None else str(key))


def _lines(rows: Sequence[Row]) -> bytes:
    """JSON lines; everything but ASCII is escaped."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _jsonl(rows: Sequence[Row]) -> tuple[bytes, bytes]:
    return _lines(rows), b""


def _trec(rows: Sequence[Row]) -> tuple[bytes, bytes]:
    failed = [{key: row[key] for key in ("job", "line", "id", "error")} for row in rows if row["error"] is not None]
    return "".join(map(_trec_lines, rows)).encode(), _lines(failed)


def _trec_lines(row: Row) -> str:
    """The lines of one job. Where scores do not tell the order (several rounds, a retrieval weight), places do."""
    hits, query = row["hits"] or [], trec_id(row["id"], row["job"])
    by_score = row["rounds"] == 1 and all(a["score"] >= b["score"] for a, b in pairwise(hits))
    lines = []
    for place, hit in enumerate(hits, start=1):
        score = hit["score"] if by_score else float(len(hits) - place + 1)
        lines.append(f"{query} Q0 {trec_id(hit['id'], hit['index'])} {place} {score!r} {TAG}\n")
    return "".join(lines)


def _parquet(rows: Sequence[Row]) -> tuple[bytes, bytes]:
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
            ("segment", pa.int64()),
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
            ("segments", pa.int64()),
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
    return sink.getvalue(), b""


def _text(value: str | int | None) -> str | None:
    return None if value is None else encodable(str(value))


FORMATS: Registry[Format] = Registry("format")
"""What `rank_file` can write, by name."""
FORMATS.add("parquet", Format(_parquet, ready=parquet))
FORMATS.add("jsonl", Format(_jsonl))
FORMATS.add("trec", Format(_trec, by_id=True))
