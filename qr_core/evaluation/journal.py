"""Journal: what a system found, a JSON line per query, so that an interrupted run goes on where it stopped.

A line bears a checksum. One that is torn or damaged is dropped, and its query is run again.
"""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from qr_core.errors import InputError
from qr_core.files.inputs import MOST_BYTES
from qr_core.files.replace import add_line, write_file, writing
from qr_core.files.workfolder import WorkFolder

log = logging.getLogger(__name__)


class Journal:
    """Records by query id; in a file where there is one.

    Parameters
    ----------
    folder : Path, optional
        Made if it does not exist. Without it, nothing outlives the process.
    job : dict
        Everything that decides the records, as plain data.

    Raises
    ------
    InputError
        When the folder holds another job's records, or cannot be written.
    """

    def __init__(self, folder: Path | None, job: dict[str, Any]) -> None:
        self.records: dict[str, dict[str, Any]] = {}
        self._path: Path | None = None
        if folder is None:
            return
        self._path = WorkFolder(folder, job).path / "records.jsonl"
        try:
            self._read(self._path)
        except OSError as error:
            raise InputError(f"cannot go on with {self._path}: {error.strerror or error}") from error

    def _read(self, path: Path) -> None:
        if not path.exists():
            return
        if path.stat().st_size > MOST_BYTES:
            raise InputError(f"{path} has more than {MOST_BYTES:,} bytes: not a record of a run, name another folder")
        sound = []
        lines = path.read_bytes().split(b"\n")
        for number, line in enumerate(lines, start=1):
            record = _checked(line)
            if record is not None:
                self.records[record["query-id"]] = record
                sound.append(line)
            elif number < len(lines):  # what follows the last line break was torn by a kill, or is nothing
                log.warning("line %d of %s is damaged: its query is run again", number, path)
        if sound != lines[:-1] or lines[-1]:
            write_file(path, b"".join(line + b"\n" for line in sound))

    def forget(self, query_ids: Iterable[str]) -> None:
        """Drop records, so that their queries are run again; the file keeps them until others follow."""
        for query_id in list(query_ids):
            del self.records[query_id]

    def add(self, query_id: str, record: dict[str, Any]) -> None:
        """Keep a record, which has `seconds`; a kill of this process does not lose it any more.

        Raises
        ------
        InputError
            When the file cannot be written.
        """
        found = {"query-id": query_id, **record}
        line = json.dumps(found, allow_nan=False)
        if self._path is not None:
            with writing(self._path):
                add_line(self._path, json.dumps({"crc32": _sum(line), **found}, allow_nan=False).encode("ascii"))
        self.records[query_id] = found


def _sum(line: str) -> int:
    return zlib.crc32(line.encode("ascii"))


def _checked(line: bytes) -> dict[str, Any] | None:
    """The record of a line; None where it is not what was written."""
    try:
        record = json.loads(line)
        crc = record.pop("crc32")
        sound = isinstance(record["query-id"], str) and isinstance(record["seconds"], float)
        return record if sound and crc == _sum(json.dumps(record)) else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
