"""Journal: what a system found, a JSON line per query, so that an interrupted run goes on where it stopped.

Knows nothing of what is found.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from qr_core.errors import InputError
from qr_core.workfolder import WorkFolder


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
        if self._path.exists():
            lines = self._path.read_text(encoding="utf-8").split("\n")
            for line in lines[:-1]:  # what follows the last line break was torn by a kill
                try:
                    record = json.loads(line)
                    self.records[str(record["query-id"])] = record
                except (ValueError, KeyError, TypeError, RecursionError) as error:
                    raise InputError(f"{self._path} is damaged: delete it, and its queries are run again") from error
            if lines[-1]:
                self._path.write_text("".join(f"{line}\n" for line in lines[:-1]), encoding="utf-8")

    def add(self, query_id: str, record: dict[str, Any]) -> None:
        """Keep a record; it is on disk when this returns."""
        found = {"query-id": query_id, **record}
        self.records[query_id] = found
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(found) + "\n")
