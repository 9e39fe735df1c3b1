"""Work folder: tensors of a long run, one file per item, so that an interrupted run goes on where it stopped.

An item is done or not: its file is written whole and bears a checksum. A folder belongs to one job as soon as it holds
a result; one that holds none, since its run failed before the first, belongs to whoever uses it next.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from torch import Tensor

from qr_core.errors import InputError
from qr_core.files.inputs import read_text
from qr_core.files.replace import DRAFT, make_folder, write_file, writing
from qr_core.files.tensors import packed, unpacked

NOTE_BYTES = 16 * 2**20
ITEM_BYTES = 2**30
"""More than any item takes; a larger file is not one of ours."""
NOTE, LOCK = "job.json", ".lock"


def refuse_links(folder: Path) -> None:
    """Refuse a folder in which something is no file or folder: writing to a link would change a file elsewhere.

    Raises
    ------
    InputError
        Naming the link, device or pipe; or the folder, when it cannot be read.
    """
    try:
        with os.scandir(folder) as items:
            kinds = {
                item.path: "a symbolic link" if item.is_symlink() else "a device or pipe"
                for item in items
                if not item.is_file(follow_symlinks=False) and not item.is_dir(follow_symlinks=False)
            }
    except OSError as error:
        raise InputError(f"cannot read the folder {folder}: {error.strerror or error}") from error
    for path, kind in kinds.items():
        raise InputError(f"{path} is {kind}, and files here are written to: remove it, or name another folder")


def holds_nothing(folder: Path) -> bool:
    """Whether nothing below a folder is a result: runs that failed early leave notes and drafts."""
    for _, _, names in os.walk(folder):
        if any(name not in (NOTE, LOCK) and not name.endswith(DRAFT) for name in names):
            return False
    return True


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Make a folder for results and keep other processes from writing there meanwhile.

    Raises
    ------
    InputError
        When another run has it, or it cannot be made or written to.
    """
    make_folder(folder)
    refuse_links(folder)
    lock = FileLock(folder / LOCK, timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise InputError(f"another run is writing to {folder}: wait for it, or name another folder") from error
    except (OSError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot lock {folder}: {reason}; name a folder on another disk") from error
    try:
        yield
    finally:
        lock.release()


class WorkFolder:
    """Results of one job, in a folder of its own.

    Parameters
    ----------
    path : Path
        Made if it does not exist.
    job : dict
        Everything that decides the results, as plain data; it is written to `job.json`.

    Raises
    ------
    InputError
        When the folder holds another job's results or a symbolic link, or cannot be written.
    """

    def __init__(self, path: Path, job: dict[str, Any]) -> None:
        self.path = path
        wanted = json.loads(json.dumps(job))
        make_folder(path)
        refuse_links(path)
        found = _note(path)
        if found == wanted:
            return
        if found is not None and not (holds_nothing(path) and _alike(found, wanted)):
            other = [key for key in {**wanted, **found} if key not in found or found[key] != wanted.get(key)]
            raise InputError(
                f"{path} holds the results of another run ({', '.join(other)} differ): "
                "name another folder, or delete it"
            )
        with writing(path):
            write_file(path / NOTE, json.dumps(wanted, indent=2) + "\n", durable=True)

    def _file(self, number: int) -> Path:
        return self.path / f"{number:06}.safetensors"

    def load(self, number: int) -> dict[str, Tensor] | None:
        """The tensors of an item that is done; None for one that is not, or whose file is damaged or too large."""
        try:
            with self._file(number).open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                return unpacked(file.read(size))[0] if size <= ITEM_BYTES else None
        except (OSError, ValueError):
            return None

    def save(self, number: int, tensors: dict[str, Tensor]) -> None:
        """Write an item; a kill in between leaves no half-written file under its name.

        Raises
        ------
        InputError
            When it cannot be written.
        """
        file = self._file(number)
        with writing(file):
            write_file(file, packed(tensors, {}))


def _note(path: Path) -> dict[str, Any] | None:
    """The job that a folder belongs to; None where it has no note."""
    note = path / NOTE
    try:
        if not note.exists():
            return None
        found = json.loads(read_text(note, NOTE_BYTES))
    except (OSError, ValueError, RecursionError) as error:  # InputError is a ValueError
        raise InputError(
            f"cannot use {path} as a work folder: {note}: {error}; name another folder, or delete it"
        ) from error
    if not isinstance(found, dict):
        raise InputError(f"cannot use {path} as a work folder: {note} is not ours; name another folder")
    return found


def _alike(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether both can be notes of this package: somebody else's file of that name is not written over."""
    return one.keys() <= other.keys() or other.keys() <= one.keys()
