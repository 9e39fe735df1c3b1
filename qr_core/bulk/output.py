"""Bulk output: the folder that holds what came of each part of a run.

A part is done or not: its file is written whole, under its final name, and noted in `parts.jsonl` with a checksum; a
run that was killed goes on with the parts that are not. The folder belongs to one input and one set of options, which
`job.json` holds. A run that is done leaves the same bytes, however often it was killed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qr_core.bulk.files import JobFile, Part
from qr_core.errors import InputError
from qr_core.files.replace import DRAFT, add_line, write_file, writing
from qr_core.files.workfolder import LOCK, NOTE, WorkFolder, held

NOTES = "parts.jsonl"
NOTES_BYTES = 2**30
"""More than the notes of any run take."""


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
    """Finished parts of one run; see `output_folder`.

    Attributes
    ----------
    done : dict of int to dict
        The note of each part that is done, by number.
    """

    def __init__(self, path: Path, job: Mapping[str, Any], ending: str, parts: Sequence[Part]) -> None:
        self.path = WorkFolder(path, dict(job)).path
        self.ending = ending
        self.parts = parts
        self.done: dict[int, dict[str, Any]] = {}
        try:
            self._read()
        except OSError as error:
            raise InputError(f"cannot go on in {path}: {error.strerror or error}") from error

    def file(self, number: int) -> Path:
        """Where a part is."""
        return self.path / f"part-{number:05}.{self.ending}"

    def _errors(self, number: int) -> Path:
        return self.file(number).with_suffix(".errors.jsonl")

    def _read(self) -> None:
        """What is done; a part whose note or file is missing, torn or damaged is not."""
        notes = self.path / NOTES
        if not notes.exists():
            return
        if notes.stat().st_size > NOTES_BYTES:
            raise InputError(f"{notes} has more than {NOTES_BYTES:,} bytes: not notes of a run, name another folder")
        expected = {part.number: part.jobs for part in self.parts}
        for line in notes.read_bytes().splitlines():
            try:
                found = json.loads(line)
                number, failed = found["part"], found["failed"]
                sound = type(number) is int and type(failed) is int and 0 <= failed <= found["jobs"]
                if sound and expected.get(number) == found["jobs"] and self._sum(number) == found["sha256"]:
                    self.done[number] = found
            except (ValueError, KeyError, TypeError, RecursionError):
                continue

    def _sum(self, number: int) -> str | None:
        """sha256 of a part's files; None where there are none."""
        digest = hashlib.sha256()
        try:
            with self.file(number).open("rb") as file:
                while block := file.read(2**20):
                    digest.update(block)
            if self._errors(number).exists():
                digest.update(self._errors(number).read_bytes())
        except (FileNotFoundError, IsADirectoryError):
            return None
        return digest.hexdigest()

    def save(self, done: Done) -> None:
        """Keep a part. A kill at any moment leaves it done or not done.

        Raises
        ------
        InputError
            When it cannot be written.
        """
        path, errors = self.file(done.number), self._errors(done.number)
        note = {
            "part": done.number,
            "jobs": done.jobs,
            "failed": done.failed,
            "bytes": len(done.content),
            "sha256": hashlib.sha256(done.content + done.errors).hexdigest(),
        }
        with writing(path):
            if done.errors:
                write_file(errors, done.errors, durable=True)
            else:
                errors.unlink(missing_ok=True)
            write_file(path, done.content, durable=True)
            add_line(self.path / NOTES, json.dumps(note).encode())
        self.done[done.number] = note

    def finish(self) -> None:
        """Leave the notes as a run that was never interrupted leaves them: a line for each part, in order.

        Raises
        ------
        InputError
            When they cannot be written.
        """
        notes = self.path / NOTES
        lines = "".join(json.dumps(self.done[number]) + "\n" for number in sorted(self.done))
        with writing(notes):
            if lines and notes.read_bytes() != lines.encode():
                write_file(notes, lines, durable=True)


@contextmanager
def output_folder(path: Path, job: Mapping[str, Any], ending: str, parts: Sequence[Part]) -> Iterator[OutputFolder]:
    """The folder of a run, which no other run can use meanwhile.

    Parameters
    ----------
    path : Path
        Made if it does not exist.
    job : mapping
        Everything that decides what the parts hold.
    ending : str
        Of the parts' files.
    parts : sequence of Part
        Of the input.

    Raises
    ------
    InputError
        When the folder holds another run's parts, is in use, or cannot be written.
    """
    try:
        names = {item.name for item in path.iterdir()} if path.is_dir() else set()
    except OSError as error:
        raise InputError(f"cannot use {path} for output: {error.strerror or error}") from error
    if NOTE not in names and any(name != LOCK and not name.endswith(DRAFT) for name in names):
        raise InputError(f"{path} is not empty and holds no run: name another folder")
    with held(path):
        yield OutputFolder(path, job, ending, parts)


def job_record(file: JobFile, part_size: int, options: Mapping[str, Any]) -> dict[str, Any]:
    """What `job.json` holds."""
    return {"input": file.digest, "jobs": file.jobs, "part size": part_size, **options}
