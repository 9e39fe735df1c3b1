"""Bulk output: the folder that holds what came of each part of a run.

A part is done or not: its file is written whole, under its final name, and noted in `parts.jsonl`; a run that was
killed goes on with the parts that are not. The folder belongs to one input and one set of options, which `job.json`
holds.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from qr_core.bulk.files import JobFile
from qr_core.errors import InputError
from qr_core.files.replace import replacing, writing
from qr_core.files.workfolder import WorkFolder


@dataclass(frozen=True)
class Done:
    """What came of a part.

    Attributes
    ----------
    number, jobs, failed : int
        Its number, how many jobs it had, and how many of them have an error.
    content : bytes
        Of the part's file.
    errors : bytes
        Of the file beside it, where the format has no place for errors.
    """

    number: int
    jobs: int
    failed: int
    content: bytes
    errors: bytes = b""


class OutputFolder:
    """Finished parts of one run.

    Parameters
    ----------
    path : Path
        Made if it does not exist.
    job : mapping
        Everything that decides what the parts hold.
    ending : str
        Of the parts' files.

    Raises
    ------
    InputError
        When the folder holds another run's parts, is in use, or cannot be written.
    """

    def __init__(self, path: Path, job: Mapping[str, Any], ending: str) -> None:
        if path.is_dir() and not (path / "job.json").exists() and any(path.iterdir()):
            raise InputError(f"{path} is not empty and holds no run: name another folder")
        self.path = WorkFolder(path, dict(job)).path
        self.ending = ending
        self.done: dict[int, dict[str, int]] = {}
        try:
            self._lock = _locked(path / ".lock")
            self._read()
        except OSError as error:
            raise InputError(f"cannot use {path} for output: {error.strerror or error}") from error

    def file(self, number: int) -> Path:
        """Where a part is."""
        return self.path / f"part-{number:05}.{self.ending}"

    def _read(self) -> None:
        """What is done; a part whose note or file is missing, torn or of another size is not."""
        notes = self.path / "parts.jsonl"
        for line in notes.read_bytes().splitlines() if notes.exists() else []:
            try:
                found = json.loads(line)
                if self.file(found["part"]).stat().st_size == found["bytes"]:
                    self.done[found["part"]] = found
            except (ValueError, KeyError, TypeError, FileNotFoundError):
                continue

    def save(self, done: Done) -> None:
        """Keep a part. A kill at any moment leaves it done or not done.

        Raises
        ------
        InputError
            When it cannot be written.
        """
        path = self.file(done.number)
        note = {"part": done.number, "jobs": done.jobs, "failed": done.failed, "bytes": len(done.content)}
        with writing(path):
            if done.errors:
                with replacing(path.with_suffix(".errors.jsonl"), durable=True) as draft:
                    draft.write_bytes(done.errors)
            with replacing(path, durable=True) as draft:
                draft.write_bytes(done.content)
            with (self.path / "parts.jsonl").open("ab") as notes:
                notes.write(b"\n" * self._torn() + json.dumps(note).encode() + b"\n")
        self.done[done.number] = note

    def _torn(self) -> bool:
        """Whether a kill left the notes without a line end."""
        with (self.path / "parts.jsonl").open("rb") as notes:
            size = notes.seek(0, os.SEEK_END)
            if not size:
                return False
            notes.seek(size - 1)
            return notes.read(1) != b"\n"

    def close(self) -> None:
        """Let another run use the folder."""
        self._lock.release()


def job_record(file: JobFile, part_size: int, options: Mapping[str, Any]) -> dict[str, Any]:
    """What `job.json` holds."""
    return {"input": file.digest, "jobs": file.jobs, "part size": part_size, **options}


def _locked(path: Path) -> FileLock:
    """Hold the folder until it is released, or for as long as this process lives."""
    lock = FileLock(path, timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise InputError(f"another run is writing to {path.parent}: wait for it, or name another folder") from error
    return lock
