"""Inputs: documents from files, folders and standard input. Whatever they hold is data."""

from __future__ import annotations

import gzip
import json
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from qr_core.errors import InputError
from qr_core.types import Document, as_document

MOST_BYTES = 4 * 2**30
"""Largest text that a file may hold, unpacked."""
UNPACKED_BYTES = 64 * 2**20
BLOCK = 2**20
"""Bytes read at once: a buffer of the whole limit would be taken whatever the file holds."""
MOST_RATIO = 100
"""A packed file may unpack to `UNPACKED_BYTES`, or to this many times its own size where that is more: text packs five
to twenty times, a bomb a thousand times."""


def most_unpacked(size: int) -> int:
    """Bytes that a packed file of `size` bytes may unpack to."""
    return max(UNPACKED_BYTES, MOST_RATIO * size)


def read_text(path: Path, most: int | None = None) -> str:
    """A file's UTF-8 text; unpacked when its name ends in `.gz`.

    Parameters
    ----------
    path : Path
    most : int, optional
        Most bytes of the text; `MOST_BYTES` by default.

    Raises
    ------
    InputError
        When the file is missing, unreadable, too large, or not UTF-8.
    """
    most = MOST_BYTES if most is None else most
    try:
        with path.open("rb") as file:
            if path.suffix == ".gz":
                most = min(most, most_unpacked(path.stat().st_size))
                with gzip.open(file) as packed:
                    raw = _at_most(packed, most + 1)
            else:
                raw = _at_most(file, most + 1)
        if len(raw) > most:
            what = "unpacks to more than" if path.suffix == ".gz" else "has more than"
            raise InputError(f"{path} {what} {most:,} bytes: split it, or unpack it if you trust it")
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8") from error
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read {path}: {reason}") from error


def _at_most(stream: IO[bytes] | gzip.GzipFile, most: int) -> bytearray:
    """The bytes of a stream, but no more than `most`."""
    raw = bytearray()
    while block := stream.read(min(BLOCK, most - len(raw))):
        raw += block
    return raw


def json_lines(text: str, origin: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers (from 1) and objects of JSON-lines text; blank lines are passed over.

    Raises
    ------
    InputError
        Naming the line that is not a JSON object.
    """
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:  # malformed, too deep, or a number of thousands of digits
            raise InputError(f"{origin}, line {number}: not valid JSON ({error})") from error
        if not isinstance(value, dict):
            raise InputError(f'{origin}, line {number}: not a JSON object; expected {{"text": ...}}')
        yield number, value


def documents_from_json_lines(text: str, origin: str) -> list[Document]:
    """Documents from lines such as `{"id": ..., "title": ..., "text": ...}`; only `text` is required.

    Raises
    ------
    InputError
        Naming the line at fault.
    """
    documents: list[Document] = []
    for number, value in json_lines(text, origin):
        try:
            documents.append(as_document(value, len(documents)))
        except InputError as error:
            raise InputError(f"{origin}, line {number}: {error}") from error
    return documents


def documents_from_lines(text: str) -> list[Document]:
    """One document per line that is not blank; its id is the line's number, from 1."""
    lines = enumerate(text.split("\n"), start=1)
    return [Document(line.removesuffix("\r"), id=number) for number, line in lines if line.strip()]


def read_source(source: str) -> str:
    """The text of a file, or of standard input for `-`.

    Raises
    ------
    InputError
        When it cannot be read, is too large, or is not UTF-8.
    """
    if source != "-":
        return read_text(Path(source))
    if sys.stdin is None:
        raise InputError("standard input is closed: pass a file, or pipe text in")
    try:
        raw = _at_most(sys.stdin.buffer, MOST_BYTES + 1)
        if len(raw) > MOST_BYTES:
            raise InputError(f"standard input has more than {MOST_BYTES:,} bytes: split it")
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"standard input is not UTF-8 text (byte {error.start})") from error


def read_documents(source: str) -> list[Document]:
    """Documents of a file, or of standard input for `-`.

    Files ending in `.jsonl` hold JSON lines, those ending in `.txt` one document per line, either with `.gz` behind.
    Standard input holds JSON lines when its first character that is not blank is `{`.

    Raises
    ------
    InputError
        When the file cannot be read, has another ending, or holds a malformed line.
    """
    if source == "-":
        text = read_source(source)
        as_json = text.lstrip().startswith("{")
        return documents_from_json_lines(text, "standard input") if as_json else documents_from_lines(text)
    path = Path(source)
    endings = [ending for ending in path.suffixes if ending != ".gz"]
    if endings[-1:] == [".jsonl"]:
        return documents_from_json_lines(read_text(path), str(path))
    if endings[-1:] == [".txt"]:
        return documents_from_lines(read_text(path))
    if not path.exists():
        raise InputError(f"cannot read {path}: no such file")
    raise InputError(f"{path}: use a file ending in .jsonl or .txt (or .jsonl.gz, .txt.gz), a folder with --dir, or -")


def read_folder(folder: Path) -> tuple[list[Document], list[Path]]:
    """Text files below a folder as documents, in the order of their paths, and the files left out.

    Each file is one document; its id is its path below the folder. Hidden files and folders are passed over. Files
    that are not UTF-8 text are left out, and named in the second list.

    Raises
    ------
    InputError
        When the folder does not exist, or a symbolic link in it leads out of it.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder" if folder.exists() else f"folder {folder} does not exist")
    root = folder.resolve()
    documents, left_out = [], []
    for path in sorted(folder.rglob("*")):
        below = path.relative_to(folder)
        if any(part.startswith(".") for part in below.parts):
            continue
        if path.is_symlink() and not _leads_below(path, root):
            raise InputError(f"{path} is a symbolic link that leads out of {folder}: remove it or copy the file")
        if not path.is_file():
            continue
        try:
            text = read_text(path)
        except InputError:
            text = "\0"
        if "\0" in text:
            left_out.append(below)
        else:
            documents.append(Document(text, id=below.as_posix()))
    return documents, left_out


def _leads_below(link: Path, root: Path) -> bool:
    """Whether a symbolic link ends below `root`; one that goes in circles leads nowhere, and is no file."""
    try:
        return link.resolve().is_relative_to(root)
    except (OSError, RuntimeError):
        return True
