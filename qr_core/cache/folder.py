"""Document folder: keys and values of documents on disk, one safetensors file each, that several processes may share.

Nothing read from it is trusted: an entry must bear its own key, have the shapes and dtypes of the model that asks, and
contents that agree with its checksum; one that does not is removed, and the document is encoded again. Checksums find
accidents, not forgeries: whoever may write here may change scores, so only the owner may. Entries hold no text and no
token ids, but keys and values can be turned back into text to a good part.

Knows nothing of models or text: an entry is a `Prefix` under a key.
"""

from __future__ import annotations

import logging
import os
import re
import stat
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from qr_core.attention.prefix import Prefix
from qr_core.checks import check_whole_number
from qr_core.errors import InputError
from qr_core.files.replace import PRIVATE, write_file
from qr_core.files.tensors import packed, unpacked

log = logging.getLogger(__name__)

FORMAT = "qrhead document states 2"
FOLDER_BYTES = 10 * 2**30
ROOM_LEFT = 0.1
"""Share of the bound that is freed when it is reached, so that not every document frees its own."""
HEADER_BYTES = 2**20
"""Most that a file may have beside its tensors."""
FORGOTTEN_SECONDS = 3600
"""A half-written file of this age belongs to no one."""
_NAME = re.compile(r"[0-9a-f]{64}\.safetensors|\.[0-9a-f]{64}\.\d+\.[0-9a-f]{8}\.tmp")


@dataclass(frozen=True)
class Entry:
    """A file of such a folder."""

    path: Path
    bytes: int
    used: float

    @property
    def unfinished(self) -> bool:
        """Whether it is being written, or was when its process ended."""
        return self.path.suffix == ".tmp"


def entries(folder: Path) -> list[Entry]:
    """The files of a folder that are entries by their name, the one used longest ago first; links are none.

    Raises
    ------
    InputError
        When there is no such folder.
    """
    found = []
    try:
        with os.scandir(folder) as items:
            for item in items:
                if _NAME.fullmatch(item.name):
                    with suppress(FileNotFoundError):  # another process removed it
                        about = item.stat(follow_symlinks=False)
                        if stat.S_ISREG(about.st_mode):
                            found.append(Entry(Path(item.path), about.st_size, about.st_atime))
    except OSError as error:
        raise InputError(f"cannot read the document cache {folder}: {error.strerror or error}") from error
    return sorted(found, key=lambda entry: (entry.used, entry.path.name))


def purge(folder: Path) -> tuple[int, int]:
    """Remove every entry, and nothing else; how many there were, and their bytes. Errors as for `entries`."""
    found = entries(folder)
    for entry in found:
        entry.path.unlink(missing_ok=True)
    return len(found), sum(entry.bytes for entry in found)


class DocumentFolder:
    """A folder of entries, bounded by bytes.

    Parameters
    ----------
    path : str or Path
    max_bytes : int

    Raises
    ------
    InputError
        When the path is a link or no folder, or other users may enter the folder, or it cannot be made.
    """

    def __init__(self, path: str | Path, max_bytes: int = FOLDER_BYTES) -> None:
        check_whole_number("folder_bytes", max_bytes)
        self.path, self.max_bytes = Path(path), max_bytes
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            about = self.path.lstat()
        except OSError as error:
            raise InputError(f"cannot make the document cache {path}: {error.strerror or error}") from error
        if not stat.S_ISDIR(about.st_mode):
            raise InputError(f"the document cache {path} is a link or no folder: name a folder")
        if os.name == "posix" and (about.st_uid != os.geteuid() or about.st_mode & 0o077):
            raise InputError(
                f"the document cache {path} is open to other users: `chmod 700` it, or name a folder that does not "
                "exist yet"
            )

    def get(self, key: str, like: Prefix, tokens: int) -> Prefix | None:
        """The entry of `key`, if it is what it says and has the layers of `like` for that many tokens; else None."""
        path = self._path(key)
        try:
            with open(path, "rb", opener=_open_plain) as file:
                about = os.fstat(file.fileno())
                expected = like.token_bytes * tokens
                if not stat.S_ISREG(about.st_mode) or about.st_size > expected + HEADER_BYTES:
                    raise ValueError("not a regular file of the right size")
                found = _checked(file.read(expected + HEADER_BYTES), key, like, tokens)
                with suppress(OSError):  # when it was used: many file systems do not take note themselves
                    os.utime(file.fileno(), ns=(time.time_ns(), about.st_mtime_ns))
                return found
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            log.warning("document cache: %s is not usable (%s) and is made again", path, error)
            with suppress(OSError):
                path.unlink()
            return None

    def put(self, found: Mapping[str, Prefix]) -> None:
        """Write entries, each in one step, and keep to the bound. A disk that is full is a warning, no error."""
        written = 0
        for key, prefix in found.items():
            if prefix.bytes > self.max_bytes:
                continue
            try:
                content = packed(_named(prefix), {"format": FORMAT, "key": key})
                write_file(self._path(key), content, shared=True, mode=PRIVATE)
                written += 1
            except OSError as error:
                log.warning("document cache: cannot write to %s: %s", self.path, error.strerror or error)
                break
        if written:
            self._keep_to_the_bound()

    def _keep_to_the_bound(self) -> None:
        found = entries(self.path)
        total = sum(entry.bytes for entry in found)
        room = self.max_bytes if total <= self.max_bytes else int(self.max_bytes * (1 - ROOM_LEFT))
        for entry in found:
            forgotten = entry.unfinished and time.time() - entry.used > FORGOTTEN_SECONDS
            if forgotten or (total > room and not entry.unfinished):
                with suppress(OSError):
                    entry.path.unlink()
                total -= entry.bytes

    def _path(self, key: str) -> Path:
        return self.path / f"{key}.safetensors"


def _open_plain(path: str, flags: int) -> int:
    """Open for reading, no link and no waiting for a pipe's other end."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))


def _checked(raw: bytes, key: str, like: Prefix, tokens: int) -> Prefix:
    """The entry in a file's bytes.

    Raises
    ------
    ValueError
        When it is broken, another document's, or another model's.
    """
    tensors, about = unpacked(raw)
    if about != {"format": FORMAT, "key": key}:
        raise ValueError("an entry of something else")
    expected = _named(like)
    if tensors.keys() != expected.keys():
        raise ValueError("other layers")
    for name, tensor in tensors.items():
        other = expected[name]
        if tensor.shape != (*other.shape[:-2], tokens, other.shape[-1]) or tensor.dtype != other.dtype:
            raise ValueError("other shapes")
    placed = {name: tensor.to(expected[name].device) for name, tensor in tensors.items()}
    keys, values = range(len(like.keys)), range(len(like.values))
    return Prefix(tuple(placed[f"key{n}"] for n in keys), tuple(placed[f"value{n}"] for n in values))


def _named(prefix: Prefix) -> dict[str, Tensor]:
    keys = {f"key{layer}": tensor for layer, tensor in enumerate(prefix.keys)}
    return keys | {f"value{layer}": tensor for layer, tensor in enumerate(prefix.values)}
