"""Work folder: tensors of a long run, one file per item, so that an interrupted run goes on where it stopped."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from qr_core.errors import InputError
from qr_core.files.inputs import read_text
from qr_core.files.replace import replacing

NOTE_BYTES = 16 * 2**20
ITEM_BYTES = 2**30
"""More than any item takes; a larger file is not one of ours."""


def refuse_links(folder: Path) -> None:
    """Refuse a folder in which something is a symbolic link: writing to it would change a file elsewhere.

    Raises
    ------
    InputError
        Naming the link.
    """
    with os.scandir(folder) as items:
        link = next((item.path for item in items if item.is_symlink()), None)
    if link is not None:
        raise InputError(f"{link} is a symbolic link, and files here are written to: remove it, or name another folder")


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
        note = path / "job.json"
        try:
            path.mkdir(parents=True, exist_ok=True)
            refuse_links(path)
            if note.exists():
                found = json.loads(read_text(note, NOTE_BYTES))
                if found != wanted:
                    other = [key for key in wanted if not isinstance(found, dict) or found.get(key) != wanted[key]]
                    raise InputError(
                        f"{path} holds the results of another run ({', '.join(other)} differ): "
                        "name another folder, or delete it"
                    )
            else:
                with replacing(note) as draft:
                    draft.write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")
        except (OSError, ValueError, RecursionError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"cannot use {path} as a work folder: {error}") from error

    def _file(self, number: int) -> Path:
        return self.path / f"{number:06}.safetensors"

    def load(self, number: int) -> dict[str, Tensor] | None:
        """The tensors of an item that is done; None for one that is not, or whose file is damaged or too large."""
        file = self._file(number)
        try:
            return load_file(file) if file.stat().st_size <= ITEM_BYTES else None
        except (OSError, SafetensorError):
            return None

    def save(self, number: int, tensors: dict[str, Tensor]) -> None:
        """Write an item; a kill in between leaves no half-written file under its name."""
        with replacing(self._file(number)) as draft:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, draft)
