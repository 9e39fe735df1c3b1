"""Bulk files: a file of jobs, cut into parts.

A part is a fixed slice of the input, which can be read by itself.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from qr_core.bulk.formats import parquet
from qr_core.errors import InputError, reason_of
from qr_core.files.inputs import most_unpacked

MOST_BYTES = 32 * 2**20
"""A part ends sooner when its jobs are longer than this."""
BLOCK = 2**20
"""Bytes that are unpacked at a time."""
TOGETHER = 4
"""Jobs over the same documents stay in one part until it is this many times larger than it should be."""
Scanned = Callable[[int, int, str | int | None], None]
"""Called for each job with its number, its line and its id."""


@dataclass(frozen=True)
class Part:
    """A slice of the input.

    Attributes
    ----------
    number : int
        From 0.
    first_job, jobs : int
        Position of its first job in the input, from 0, and how many there are. Blank lines are not jobs.
    first_line : int
        From 1. In Parquet a row is a line.
    start, end : int
        Bytes of `JobFile.path`.
    """

    number: int
    first_job: int
    jobs: int
    first_line: int
    start: int
    end: int


@dataclass(frozen=True)
class JobFile:
    """Jobs as JSON lines, and how they are cut.

    Attributes
    ----------
    path : Path
        The input itself, or a temporary copy of it as plain JSON lines.
    digest : str
        sha256 of its lines.
    """

    path: Path
    digest: str
    parts: tuple[Part, ...]

    @property
    def jobs(self) -> int:
        """How many jobs there are."""
        return sum(part.jobs for part in self.parts)


def read_part(path: Path, part: Part) -> bytes:
    """The lines of a part."""
    with path.open("rb") as file:
        file.seek(part.start)
        return file.read(part.end - part.start)


@contextmanager
def opened(source: Path, part_size: int, scanned: Scanned | None = None) -> Iterator[JobFile]:
    """The jobs of a `.jsonl` or `.parquet` file, which may be gzipped (`.gz`).

    All but plain `.jsonl` is unpacked to a temporary file, so that parts can be read by themselves. It is bounded as
    every packed file is, and removed in the end, also when the program is told to stop.

    Raises
    ------
    InputError
        When the file cannot be read, unpacks to too much, or has another ending.
    """
    endings = [ending for ending in source.suffixes if ending != ".gz"]
    kind, packed = endings[-1] if endings else "", source.suffix == ".gz"
    if kind not in (".jsonl", ".parquet"):
        raise InputError(f"{source}: use a file ending in .jsonl or .parquet (or .jsonl.gz)")
    path = source
    with ExitStack() as stack:
        try:
            if packed or kind == ".parquet":
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="qrhead-jobs-"))
            if packed:
                path = Path(folder) / f"unpacked{kind}"
                with gzip.open(source) as whole, _Copy(path, source) as copy:
                    while block := whole.read(BLOCK):
                        copy.write(block)
            if kind == ".parquet":
                path = _as_lines(path, Path(folder) / "rows.jsonl", source)
            with path.open("rb") as file:
                digest, parts = _cut(file, part_size, scanned)
        except (OSError, EOFError, zlib.error) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"cannot read {source}: {reason}") from error
        yield JobFile(path, digest, tuple(parts))


class _Copy:
    """A temporary file of what a packed file holds: bounded, and clear about a full disk."""

    def __init__(self, path: Path, source: Path) -> None:
        self.path, self.source = path, source
        self.most = self.left = most_unpacked(source.stat().st_size)

    def __enter__(self) -> _Copy:
        self._file = self.path.open("wb", buffering=0)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, block: bytes) -> None:
        """Add bytes.

        Raises
        ------
        InputError
            When they are too many, or the disk takes no more.
        """
        self.left -= len(block)
        if self.left < 0:
            raise InputError(
                f"{self.source} unpacks to more than {self.most:,} bytes: split it, or write it as plain .jsonl if you "
                "trust it"
            )
        try:
            while block:
                block = block[self._file.write(block) :]
        except OSError as error:
            raise InputError(
                f"cannot unpack {self.source} to {self.path.parent.parent}: {error.strerror or error}; name another "
                "folder with TMPDIR, or write it as plain .jsonl"
            ) from error


def _as_lines(source: Path, path: Path, named: Path) -> Path:
    """A Parquet file's rows as JSON lines; a value that JSON has no form for becomes a line that is not valid."""
    pq = parquet()
    try:
        table = pq.ParquetFile(source)
        columns = [name for name in ("id", "query", "documents") if name in table.schema_arrow.names]
        if "query" not in columns or "documents" not in columns:
            raise InputError(f"{named} has no columns 'query' and 'documents'")
        with _Copy(path, named) as lines:
            for batch in table.iter_batches(batch_size=256, columns=columns):
                for row in batch.to_pylist():
                    line = json.dumps(row, default=lambda value: {"not JSON": type(value).__name__})
                    lines.write(line.encode("ascii") + b"\n")
    except InputError:
        raise
    except (ValueError, OSError, NotImplementedError) as error:  # pyarrow's own errors are among these
        raise InputError(f"cannot read {named} as Parquet: {reason_of(error)}") from error
    return path


def _cut(file: IO[bytes], part_size: int, scanned: Scanned | None) -> tuple[str, list[Part]]:
    """Parts of `part_size` jobs, where documents change."""
    digest, parts = hashlib.sha256(), list[Part]()
    jobs = offset = first_job = start = 0
    first_line, documents = 1, None
    for number, line in enumerate(file, start=1):
        digest.update(line)
        if line.strip():
            before, documents, key = documents, *_looked_at(line)
            size = jobs - first_job
            full = size >= part_size or (size and offset - start >= MOST_BYTES)
            changed = documents is None or documents != before
            if full and (changed or size >= TOGETHER * part_size or offset - start >= TOGETHER * MOST_BYTES):
                parts.append(Part(len(parts), first_job, size, first_line, start, offset))
                first_job, first_line, start = jobs, number, offset
            if scanned is not None:
                scanned(jobs, number, key)
            jobs += 1
        offset += len(line)
    if jobs > first_job:
        parts.append(Part(len(parts), first_job, jobs - first_job, first_line, start, offset))
    return digest.hexdigest(), parts


def _looked_at(line: bytes) -> tuple[Any, str | int | None]:
    """Documents and id of a line that may be broken."""
    try:
        value = json.loads(line.decode("utf-8-sig"))
        key = value.get("id")
        return value["documents"], key if isinstance(key, str | int) else None
    except (ValueError, RecursionError, AttributeError, KeyError):
        return None, None
