"""Replace: write a file so that its name never stands for half of it, whenever the writer is killed."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qr_core.errors import InputError


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
    own = f".{path.stem}.{os.getpid()}.{secrets.token_hex(4)}.tmp"
    draft = path.with_name(own if shared else f"{path.name}.tmp")
    try:
        yield draft
        if durable:
            with draft.open("rb+") as file:
                os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


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
