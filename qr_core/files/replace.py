"""Replace: write a file so that its name never stands for half of it, whenever the writer is killed or the disk full.

All that this package writes goes through here: whole files are written beside their place and moved into it, and
journals grow by whole lines. Knows nothing of what is written.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from qr_core.errors import InputError

DRAFT = ".tmp"
"""Ends the name of a file that is being written, or was when its process ended."""
READABLE = 0o666
PRIVATE = 0o600


@contextmanager
def replacing(path: Path, *, shared: bool = False, durable: bool = False) -> Iterator[Path]:
    """Give a name beside `path` to write to; when the block ends well, that file takes the place of `path` in one step.

    When the block raises, `path` stays as it was and the unfinished file is removed.

    Parameters
    ----------
    path : Path
    shared : bool
        Several processes may write `path` at once: the name is new each time. Otherwise it is always the same, so that
        what a killed writer left is written over by the next one.
    durable : bool
        Wait until the disk has the content, so that not even a power cut leaves an empty file.
    """
    own = f".{path.stem}.{os.getpid()}.{secrets.token_hex(4)}{DRAFT}"
    draft = path.with_name(own if shared else f"{path.name}{DRAFT}")
    try:
        yield draft
        if durable:
            with draft.open("rb+") as file:
                os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        with suppress(OSError):  # what went wrong first is what counts
            draft.unlink(missing_ok=True)
        raise


def write_file(
    path: Path, content: bytes | str, *, shared: bool = False, durable: bool = False, mode: int = READABLE
) -> None:
    """Write a whole file in place of `path`; see `replacing`.

    Parameters
    ----------
    path : Path
    content : bytes or str
        Text is written as UTF-8.
    shared, durable : bool
        As for `replacing`.
    mode : int
        Who may use a new file, less the process's umask.

    Raises
    ------
    OSError
        When it cannot be written; what was there is there still. See `writing`.
    """
    raw = content.encode("utf-8") if isinstance(content, str) else content
    with replacing(path, shared=shared, durable=durable) as draft:
        # A link at the draft's name would lead the content elsewhere; a shared draft is nobody's yet.
        flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | (os.O_EXCL if shared else os.O_TRUNC)
        with os.fdopen(os.open(draft, flags | getattr(os, "O_BINARY", 0), mode), "wb") as file:
            _written(file, raw)


def write_named(path: str | Path, content: bytes | str) -> None:
    """Write a file that a caller named: of a link, what it leads to; into a device or pipe, as it is.

    Raises
    ------
    InputError
        When it cannot be written; what was there is there still.
    """
    named = Path(path)
    with writing(named):
        place = Path(os.path.realpath(named))
        if place.exists() and not place.is_file() and not place.is_dir():
            with place.open("wb") as file:
                _written(file, content.encode("utf-8") if isinstance(content, str) else content)
        else:
            write_file(place, content)


def add_line(path: Path, line: bytes) -> None:
    """Let a journal grow by a line; what a kill or a full disk left of an earlier one stands on a line of its own.

    Raises
    ------
    OSError
        When it cannot be written; part of the line may be there, without its end.
    """
    with path.open("ab+") as file:
        size = file.seek(0, os.SEEK_END)
        torn = False
        if size:
            file.seek(size - 1)
            torn = file.read(1) != b"\n"
        _written(file, b"\n" * torn + line + b"\n")


def _written(file: BinaryIO, raw: bytes) -> None:
    file.write(raw)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say in one line why a file or folder cannot be written.

    Raises
    ------
    InputError
        When the block raises OSError.
    """
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error


def check_writable(path: Path) -> None:
    """Refuse a file that cannot be written, before the work whose result it is to hold.

    Raises
    ------
    InputError
        When it is a folder, or its own folder is missing or takes no new file.
    """
    with writing(path):
        place = Path(os.path.realpath(path))
        if place.is_dir():
            raise InputError(f"cannot write {path}: it is a folder, name a file in it")
        if not place.parent.is_dir():
            raise InputError(f"cannot write {path}: there is no folder {place.parent}, name a folder that exists")
        if not place.exists() or place.is_file():
            _try(place.parent)


def make_folder(path: Path) -> None:
    """Make a folder for results, or refuse one that takes none, before the work.

    Raises
    ------
    InputError
        When it cannot be made, or takes no new file.
    """
    with writing(path):
        if path.exists() and not path.is_dir():
            raise InputError(f"cannot write to {path}: it is a file, name a folder")
        path.mkdir(parents=True, exist_ok=True)
        _try(path)


def _try(folder: Path) -> None:
    """Make a file and remove it: whether that works, no other question answers for every kind of disk."""
    draft = folder / f".{os.getpid()}.{secrets.token_hex(4)}{DRAFT}"
    draft.open("xb").close()
    draft.unlink(missing_ok=True)
