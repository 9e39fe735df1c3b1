"""Journal: what a system found, a JSON line per query, so that an interrupted run goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from qr_core.errors import InputError
from qr_core.files.inputs import MOST_BYTES
from qr_core.files.replace import writing
from qr_core.files.workfolder import WorkFolder


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
        raw = path.read_bytes()
        whole = raw.rfind(b"\n") + 1  # what follows the last line break was torn by a kill
        for number, line in enumerate(raw[:whole].split(b"\n")[:-1], start=1):
            try:
                record = json.loads(line)
                if not isinstance(record["query-id"], str) or not isinstance(record["seconds"], float):
                    raise ValueError
                self.records[record["query-id"]] = record
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise InputError(
                    f"line {number} of {path} is damaged: delete the line, and its query is run again"
                ) from error
        if whole < len(raw):
            with path.open("r+b") as lines:
                lines.truncate(whole)

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
        if self._path is not None:
            with writing(self._path), self._path.open("a", encoding="ascii") as lines:
                lines.write(json.dumps(found, allow_nan=False) + "\n")
        self.records[query_id] = found
